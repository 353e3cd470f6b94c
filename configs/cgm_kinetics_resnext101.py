"""CGM-Net with 3D-ResNeXt-101 on Kinetics-400: the paper's recipe (Table 3: top-1 76.2; Kinetics-600, Table 4: 80.2).

As `cgm_kinetics_r3d18.py`; with --config.method.backbone.name=resnet3d_50 Table 3 has 70.1, Table 4 76.2.

Command:  python launch.py --config configs/cgm_kinetics_resnext101.py --workdir runs/cgm_kinetics_resnext101 \\
              --config.data.root=/data/kinetics400
Cost:     not yet run
Result:   not yet run
"""

from ml_collections import ConfigDict

from configs import cgm_kinetics_r3d18
from hcml_jax.experiment import complete


def get_config() -> ConfigDict:
    """The experiment."""
    config = cgm_kinetics_r3d18.get_config().to_dict()
    config["method"]["backbone"]["name"] = "resnext3d_101"
    return complete(config)
