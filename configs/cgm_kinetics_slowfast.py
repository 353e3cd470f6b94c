"""CGM-Net with SlowFast 16x8 on Kinetics-400: the paper's recipe (Table 3: top-1 80.8; Kinetics-600, Table 4: 81.9).

As `cgm_kinetics_r3d18.py`, with SlowFast's own clips: 64 frames, two apart, of 224 pixels; maps are decoded of both its
pathways. Table 3 calls its layers ResNeXt-101's; the published SlowFast 16x8 has ResNet-101's, as here. A clip has 16
times the pixels of one of the other configs.

Command:  python launch.py --config configs/cgm_kinetics_slowfast.py --workdir runs/cgm_kinetics_slowfast \\
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
    config["method"]["backbone"]["name"] = "slowfast_r101_16x8"
    config["data"] |= {"frames": 64, "stride": 2, "short_side": (256, 320), "crop": 224}
    config["evaluation"] |= {"views": ("1x1", "10x3"), "crop": 256}
    return complete(config)
