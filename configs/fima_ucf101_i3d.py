"""FIMA with I3D on UCF-101: the paper's recipe (A.3; Table 4: linear 75.3, fine-tuned 84.2; Table 6: R@1 54.0).

As `fima_ucf101_r2plus1d18.py`, at 224 pixels; `finetune_ucf101.py:fima_i3d` and the like go on from here.

Command:  python launch.py --config configs/fima_ucf101_i3d.py --workdir runs/fima_ucf101_i3d \\
              --config.data.root=/data/ucf101
Cost:     not yet run
Result:   not yet run
"""

from ml_collections import ConfigDict

from configs import fima_ucf101_r2plus1d18
from hcml_jax.experiment import complete


def get_config() -> ConfigDict:
    """The experiment."""
    config = fima_ucf101_r2plus1d18.get_config().to_dict()
    config["method"]["backbone"]["name"] = "i3d"
    config["data"] |= {"short_side": (256, 256), "crop": 224}
    return complete(config)
