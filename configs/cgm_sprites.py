"""CGM-Net on rendered Motion Sprites: motion maps without labels, then motion and action together. Tian et al., eq. 7.

The frame backbone is the HCML demo's, with its motion blocks, but without strides in time and with half of those in
space: maps are decoded from 12 x 12 places of every frame. In a trial with a quarter of the frames and 6 x 6 places,
predicted frames were no better than copies after 350 steps. Clips are those of MSCL and FIMA.

Command:  python launch.py --config configs/cgm_sprites.py --workdir runs/cgm_sprites
Cost:     not yet run
Result:   not yet run
"""

from ml_collections import ConfigDict

from configs import hcml_sprites, mscl_sprites
from hcml_jax.experiment import complete


def get_config() -> ConfigDict:
    """The experiment."""
    demo = hcml_sprites.get_config().to_dict()
    stage = demo["method"]["stages"]["joint"] | {"learning_rate": 3e-3}
    config = {
        "seed": 0,
        "method": {
            "name": "cgm_net",
            "backbone": demo["method"]["backbone"]
            | {"temporal_strides": (1, 1, 1, 1), "spatial_strides": (1, 2, 1, 1)},
            "motion_blocks": ("res2", "res3", "res4"),
            "context": {"name": "resnet_10", "width": 16, "stem_pool": False},
            "maps": {
                "filter_size": 3,
                "upsampled_filter_size": 7,
                "decoder_widths": (32,),
                "lr_widths": (16, 16, 32, 32, 64, 64),
                "lr_strides": (1, 2, 1, 2, 1, 1),
                "hr_widths": (16, 16, 32, 32, 64, 64),
                "hr_strides": (2, 2, 1, 2, 1, 1),
            },
            "flip": False,  # it would turn "translate_left" into "translate_right"
            "stages": {"motion": stage | {"steps": 600}, "joint": stage | {"steps": 600}},
        },
        "data": mscl_sprites.get_config().to_dict()["data"],
        "training": {"batch_size": 8, "log_every": 50, "checkpoint_every": 200, "validation_split": "val"},
        "evaluation": {"split": "test", "batch_size": 64},
    }
    return complete(config)
