"""FIMA with I3D on Kinetics-400: the paper's recipe (A.3; Table 4: UCF-101 linear 76.4, fine-tuned 88.5).

As `fima_kinetics_r2plus1d18.py`, at 224 pixels; `finetune_ucf101.py:fima_i3d` and the like go on from here.

Command:  python launch.py --config configs/fima_kinetics_i3d.py --workdir runs/fima_kinetics_i3d \\
              --config.data.root=/data/kinetics400
Cost:     not yet run
Result:   not yet run
"""

from ml_collections import ConfigDict

from configs import fima_kinetics_r2plus1d18
from hcml_jax.experiment import complete


def get_config() -> ConfigDict:
    """The experiment."""
    config = fima_kinetics_r2plus1d18.get_config().to_dict()
    config["method"]["backbone"]["name"] = "i3d"
    config["data"] |= {"short_side": (256, 256), "crop": 224}
    return complete(config)
