"""The demo made small: four classes of Motion Sprites, two steps a stage."""

from ml_collections import ConfigDict

from configs import hcml_sprites
from hcml_jax.experiment import complete
from tests.methods import tiny


def get_config() -> ConfigDict:
    """The experiment; the caller names `data.root`."""
    config = hcml_sprites.get_config().to_dict()
    fields = tiny.hcml_config()
    config["method"] |= {name: fields[name] for name in ("backbone", "flow_channels", "positions")}
    config["method"]["stages"] = {name: tiny.schedule() for name in config["method"]["stages"]}
    config["method"]["smoothness_weight"] = 0.02
    config["data"] |= {
        "root": "",
        "sprites": {
            "size": 32,
            "classes": ("translate_left", "translate_right", "speed_up", "slow_down"),
            "radius": (5.0, 7.0),
            "pair_radius": (3.0, 4.0),
            "train_per_class": 4,
            "test_per_class": 2,
            "val_per_class": 1,
        },
        "frames": 8,
        "short_side": (32, 32),
        "crop": 32,
        "labels_per_class": 2,
    }
    config["training"] = {"batch_size": 4, "log_every": 1, "checkpoint_every": 1, "validation_split": "val"}
    config["evaluation"] = {"neighbours": (3, 1), "recall_at": (1, 5), "readouts": ("Tx1x1", "3x3"), "figure_clips": 2}
    return complete(config)
