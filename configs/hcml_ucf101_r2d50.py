"""HCML with R2D-50 on UCF-101 from scratch: the paper's recipe (C.2; Table 2: top-1 79.8 from one clip).

The table has columns path, label, split ("train", "test"), for example of split 1. The paper names no split there, and
no schedule for UCF-101 from scratch; here it is that of Kinetics, with a batch-norm group of 8 clips on each of 8 GPUs.

Command:  python launch.py --config configs/hcml_ucf101_r2d50.py --workdir runs/ucf101 \\
              --config.data.root=/data/ucf101
Cost:     not yet run
Result:   not yet run
"""

from ml_collections import ConfigDict

from configs import hcml_kinetics_r2d50
from hcml_jax.experiment import complete


def get_config() -> ConfigDict:
    """The experiment."""
    config = hcml_kinetics_r2d50.get_config().to_dict()
    config["data"] |= {"root": "data/ucf101", "skip_bad": False, "validation_share": 0.05}
    config["training"] |= {"batch_size": 64, "validation_split": "validation"}
    config["evaluation"] = {"split": "test"}
    return complete(config)
