"""CGM-Net with 3D-ResNeXt-101, fine-tuned on UCF-101: the paper's recipe (Table 5: top-1 94.1).

All losses, on clips of 32 frames, from a run of `cgm_kinetics_resnext101.py`; from one without labels (Table 2: 88.1)
with --config.init_from.prefixes="()". The table has columns path, label, split ("train", "test"), one folder for each
of the three splits, whose mean Table 5 has.

Command:  python launch.py --config configs/cgm_ucf101_resnext101.py --workdir runs/cgm_ucf101_resnext101 \\
              --config.data.root=/data/ucf101_split1 --config.init_from.path=runs/cgm_kinetics_resnext101
Cost:     not yet run
Result:   not yet run
"""

from ml_collections import ConfigDict

from configs import cgm_kinetics_resnext101
from hcml_jax.experiment import complete

# All but the last layers, which have other classes.
PREFIXES = (
    *("backbone", "decoder", "context", "upsampler"),
    *(f"{pipeline}_action/conv{number}" for pipeline in ("lr", "hr") for number in range(6)),
)


def get_config() -> ConfigDict:
    """The experiment."""
    config = cgm_kinetics_resnext101.get_config().to_dict()
    config["init_from"] = {"path": "runs/cgm_kinetics_resnext101", "prefixes": PREFIXES}
    config["data"] |= {"root": "data/ucf101", "frames": 32, "skip_bad": False, "validation_share": 0.05}
    config["training"]["first_stage"] = "joint"
    # Predicted frames are measured after motion is learnt without labels: in the run that this one starts from.
    config["evaluation"] |= {"split": "test", "protocols": ("recognition", "cost")}
    return complete(config)
