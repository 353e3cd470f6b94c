"""MSCL with S3D on UCF-101: the paper's recipe (Table 8: R@1 63.2), as `mscl_ucf101_r3d18.py` but for the backbone.

S3D halves time before its second stage and again before its fourth, so features for single times are those of every
second frame, as R3D-18's are.

Command:  python launch.py --config configs/mscl_ucf101_s3d.py --workdir runs/mscl_ucf101_s3d \\
              --config.data.root=/data/ucf101 --config.data.flow=/data/ucf101/flow
Cost:     not yet run
Result:   not yet run
"""

from ml_collections import ConfigDict

from configs import mscl_ucf101_r3d18
from hcml_jax.experiment import complete


def get_config() -> ConfigDict:
    """The experiment."""
    config = mscl_ucf101_r3d18.get_config().to_dict()
    config["method"] |= {"local_stages": ("mixed3", "mixed4", "mixed5")}
    config["method"]["backbone"] |= {"name": "s3d"}
    return complete(config)
