"""MoCo with R3D-18 on UCF-101: the baseline of MSCL, its loss on frames alone (Table 1, first row).

Command:  python launch.py --config configs/moco_ucf101_r3d18.py --workdir runs/moco_ucf101 \\
              --config.data.root=/data/ucf101
Cost:     not yet run
Result:   not yet run
"""

from ml_collections import ConfigDict

from configs import mscl_ucf101_r3d18
from hcml_jax.experiment import complete


def get_config() -> ConfigDict:
    """The experiment."""
    config = mscl_ucf101_r3d18.get_config().to_dict()
    config["method"] |= {"flow_weight": 0.0, "cross_weight": 0.0, "local_weight": 0.0}
    config["data"] |= {"flow": "truth", "moving": False}
    return complete(config)
