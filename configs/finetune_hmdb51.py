"""Fine-tuning on HMDB51 of a network that was trained elsewhere: as `finetune_ucf101.py`, FIMA with less dropout.

The config's argument is "mscl" (MSCL Table 6: 62.8), "fima" (FIMA Table 4: 59.4) or "fima_i3d" (62.1), from
Kinetics-400.

Command:  python launch.py --config configs/finetune_hmdb51.py:fima --workdir runs/finetuned \\
              --config.data.root=/data/hmdb51_split1 --config.init_from.path=runs/kinetics
Cost:     not yet run
Result:   not yet run
"""

from ml_collections import ConfigDict

from configs import finetune_ucf101
from hcml_jax.experiment import complete

PAPERS = ("mscl", "fima", "fima_i3d")


def get_config(paper: str = "mscl") -> ConfigDict:
    """The experiment, by the schedule of `paper`."""
    config = finetune_ucf101.get_config(paper).to_dict()
    config["data"]["root"] = "data/hmdb51"
    if paper.startswith("fima"):
        config["method"]["dropout"] = 0.5
    return complete(config)
