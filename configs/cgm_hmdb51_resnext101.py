"""CGM-Net with 3D-ResNeXt-101, fine-tuned on HMDB51: as `cgm_ucf101_resnext101.py` (Table 5: 69.8; Table 2: 59.0).

The table has columns path, label, split ("train", "test"), one folder for each of the three splits.

Command:  python launch.py --config configs/cgm_hmdb51_resnext101.py --workdir runs/cgm_hmdb51_resnext101 \\
              --config.data.root=/data/hmdb51_split1 --config.init_from.path=runs/cgm_kinetics_resnext101
Cost:     not yet run
Result:   not yet run
"""

from ml_collections import ConfigDict

from configs import cgm_ucf101_resnext101
from hcml_jax.experiment import complete


def get_config() -> ConfigDict:
    """The experiment."""
    config = cgm_ucf101_resnext101.get_config().to_dict()
    config["data"]["root"] = "data/hmdb51"
    return complete(config)
