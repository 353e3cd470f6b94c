"""MSCL with R3D-18 on UCF-101: the paper's recipe (4.2; Table 8: R@1 65.6; Table 6: fine-tuned 82.1, linear 72.5).

The table has columns path, label, split ("train", "test") of split 1; labels serve the evaluation alone. Flow as for
`mscl_kinetics_r3d18.py`, with --stride 8 --every 4.

Command:  python launch.py --config configs/mscl_ucf101_r3d18.py --workdir runs/mscl_ucf101 \\
              --config.data.root=/data/ucf101 --config.data.flow=/data/ucf101/flow
Cost:     not yet run
Result:   not yet run
"""

from ml_collections import ConfigDict

from configs import mscl_kinetics_r3d18
from hcml_jax.experiment import complete


def get_config() -> ConfigDict:
    """The experiment."""
    config = mscl_kinetics_r3d18.get_config().to_dict()
    config["method"]["stages"]["contrast"]["epochs"] = 600.0
    config["data"] |= {"root": "data/ucf101", "flow": "data/ucf101/flow", "stride": 8}
    config["data"] |= {"skip_bad": False, "validation_share": 0.05}
    config["evaluation"] |= {"split": "test"}
    return complete(config)
