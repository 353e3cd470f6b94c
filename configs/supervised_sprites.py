"""The baseline of the demo: the network of hcml_sprites.py, motion blocks included, on the same few labels alone.

HCML Table 2, second row. `'--config.method.motion_blocks=()'` gives the first row, the bare R2D.

Command:  python launch.py --config configs/supervised_sprites.py --workdir runs/supervised
Cost:     4 minutes on 2 cores
Result:   top-1 58.0 (seed 0)
"""

from ml_collections import ConfigDict

from configs import hcml_sprites
from hcml_jax.experiment import complete


def get_config() -> ConfigDict:
    """The experiment."""
    config = hcml_sprites.get_config().to_dict()
    hcml = config["method"]
    config["method"] = {
        "name": "supervised",
        "backbone": hcml["backbone"],
        "motion_blocks": ("res2", "res3", "res4"),
        "flip": hcml["flip"],
        "stages": {"supervised": hcml["stages"]["joint"] | {"learning_rate": 3e-2}},  # the best of three rates
    }
    config["evaluation"]["protocols"] = ("recognition", "controls", "cost")
    return complete(config)
