"""CGM-Net with 3D-ResNet-18 on UCF-101: motion maps (Tables 1 and 6: l1 0.018 and 0.024), and ablations (Tables 7, 8).

The table has columns path, label, split ("train", "test") of split 1. As `cgm_kinetics_r3d18.py`, from fresh weights.
For Tables 7 and 8 (top-1 90.6, the backbone alone 84.4) the joint stage starts from Kinetics:
--config.init_from.path=runs/cgm_kinetics --config.training.first_stage=joint and the prefixes of
`cgm_ucf101_resnext101.py`. Their other rows are config.method.maps.upsampling=nearest or bilinear, config.method.scale
and config.method.pipelines. Frames of 256 pixels (Table 1): --mode=evaluate with config.evaluation.crop and short_side.

Command:  python launch.py --config configs/cgm_ucf101_r3d18.py --workdir runs/cgm_ucf101 \\
              --config.data.root=/data/ucf101
Cost:     not yet run
Result:   not yet run
"""

from ml_collections import ConfigDict

from configs import cgm_kinetics_r3d18
from hcml_jax.experiment import complete


def get_config() -> ConfigDict:
    """The experiment."""
    config = cgm_kinetics_r3d18.get_config().to_dict()
    config["data"] |= {"root": "data/ucf101", "skip_bad": False, "validation_share": 0.05}
    config["evaluation"]["split"] = "test"
    return complete(config)
