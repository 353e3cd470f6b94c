"""The tiny config with one level: what processes do together does not depend on how many stages there are."""

from ml_collections import ConfigDict

from hcml_jax.experiment import complete
from tests import tiny_config
from tests.methods import tiny


def get_config() -> ConfigDict:
    """The experiment; the caller names `data.root`."""
    config = tiny_config.get_config().to_dict()
    config["method"]["levels"] = ("reconstruction",)
    config["method"]["stages"] = {name: tiny.schedule() for name in ("level0", "joint")}
    brief = {"readouts": ("3x3",), "baselines": ("pixels",), "figure_clips": 0}
    config["evaluation"] |= {"protocols": ("cost",), **brief}
    return complete(config)
