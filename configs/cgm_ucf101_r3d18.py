"""CGM-Net with 3D-ResNet-18 on UCF-101: motion maps without labels, then with them (Tables 1, 6: l1 0.018, 0.024).

The table has columns path, label, split ("train", "test") of split 1. As `cgm_kinetics_r3d18.py`, from fresh weights.
Frames of 256 pixels (Table 1): --mode=evaluate with --config.evaluation.crop=256 --config.evaluation.short_side=256.
Table 6 and Figure 6 have other values of config.method.maps.upsampling and config.method.maps.scale (scale 1 has
upsampling "none", a fifth entry in maps.decoder_widths and no pipeline "hr"). Tables 7 and 8 (top-1 90.6) start from
Kinetics: `cgm_ucf101_resnext101.py` with --config.method.backbone.name=resnet3d_18 --config.data.frames=16
--config.init_from.path=runs/cgm_kinetics_r3d18. The other rows of Table 7 start from runs on Kinetics with the same
config.method.maps; config.init_from.prefixes then names the modules of these. Those of Table 8 evaluate the same
network with other values of config.method.inference (--mode=evaluate, config.init_from.path).

Command:  python launch.py --config configs/cgm_ucf101_r3d18.py --workdir runs/cgm_ucf101_r3d18 \\
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
