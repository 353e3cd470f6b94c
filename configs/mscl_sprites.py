"""MSCL on rendered Motion Sprites with their true flow. Ni et al., all losses (Table 1, without MDS).

The backbone of frames is the HCML demo's, with its motion blocks: a small 3-D network from scratch did not begin to
learn the local motion contrast in as many steps.

Command:  python launch.py --config configs/mscl_sprites.py --workdir runs/mscl_sprites
Cost:     23 minutes on 2 cores beside other work, 5 of them evaluation
Result:   kNN 66.5, linear probe 74.5, R@1 63.2; with time kept 76.5, 89.0, 78.8 (seed 0, not tuned); docs/results.md
          has the rest
"""

from ml_collections import ConfigDict

from configs import hcml_sprites
from hcml_jax.experiment import complete


def get_config() -> ConfigDict:
    """The experiment."""
    demo = hcml_sprites.get_config().to_dict()
    data = demo["data"] | {"root": "", "jitter": True}
    # Frames to spare: the two clips of a video begin at different ones, and the last flow map leads beyond its clip.
    data["sprites"] |= {"frames": 20, "zoom": (1.04, 1.06), "closing_speed": (1.1, 1.6), "rendered": True}
    config = {
        "seed": 0,
        "method": {
            "name": "mscl",
            "backbone": demo["method"]["backbone"],
            "motion_blocks": ("res2", "res3", "res4"),
            "flow_backbone": {"name": "resnet_10", "width": 8, "stem_pool": False},
            "channels": 64,
            "queue": 512,
            "momentum": 0.99,
            "batch_norm_group": 8,
            "area": (0.5, 1.0),
            "flip": False,  # it would turn "translate_left" into "translate_right"
            "stages": {
                "contrast": {"steps": 1000, "warmup": 50.0, "optimizer": "adamw", "learning_rate": 3e-3, "per_clips": 0}
            },
        },
        "data": data,
        "training": {"batch_size": 16, "log_every": 50, "checkpoint_every": 200, "validation_split": "val"},
        "evaluation": {
            "split": "test",
            "batch_size": 64,
            "protocols": ("neighbours", "linear", "retrieval", "controls"),
        },
    }
    return complete(config)
