"""FIMA on rendered Motion Sprites: all losses (Zhu et al., Table 1, last row).

As in the paper a clip has every second frame of a window, here of 16 frames, and features have two time steps. The last
stage of the backbone has no stride: a place is 8 x 8 pixels, like half a sprite, not 16 x 16.

Command:  python launch.py --config configs/fima_sprites.py --workdir runs/fima_sprites
Cost:     58 minutes on 2 cores beside other work, 10 of them evaluation
Result:   kNN 28.7, linear probe 63.7, R@1 27.0; with time kept 41.8, 76.5, 40.0 (seed 0, not tuned); docs/results.md
"""

from ml_collections import ConfigDict

from configs import hcml_sprites, mscl_sprites
from hcml_jax.experiment import complete


def get_config() -> ConfigDict:
    """The experiment."""
    config = mscl_sprites.get_config().to_dict()
    config["method"] = {
        "name": "fima",
        "backbone": hcml_sprites.get_config().to_dict()["method"]["backbone"] | {"spatial_strides": (1, 2, 2, 1)},
        "motion_blocks": ("res2", "res3", "res4"),
        "hidden": 128,
        "channels": 64,
        "decoder": {"width": 64},
        "queue": 512,
        "momentum": 0.99,
        "batch_norm_group": 8,
        "area": (0.5, 1.0),
        "flip": False,  # it would turn "translate_left" into "translate_right"
        "stages": config["method"]["stages"],
    }
    return complete(config)
