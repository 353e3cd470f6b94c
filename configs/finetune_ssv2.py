"""Fine-tuning on Something-Something v2 of a network that was trained elsewhere: MSCL Table 7 (50.3 from Kinetics-400).

The paper names no schedule for this dataset; this is that of UCF-101 with fewer epochs, because there are 18 times the
clips: 30, with the rate divided by ten at 20 and at 25. Dropout 0.5 is our choice. Flips are off, because they would
change labels such as "left".

Command:  python launch.py --config configs/finetune_ssv2.py --workdir runs/finetuned \\
              --config.data.root=/data/ssv2 --config.init_from.path=runs/kinetics
Cost:     not yet run
Result:   not yet run
"""

from ml_collections import ConfigDict

from configs import finetune_ucf101
from hcml_jax.experiment import complete


def get_config() -> ConfigDict:
    """The experiment."""
    config = finetune_ucf101.get_config("mscl").to_dict()
    config["data"] |= {"root": "data/ssv2", "stride": 2}
    config["method"] |= {"flip": False, "dropout": 0.5}
    config["method"]["stages"]["supervised"] |= {"epochs": 30.0, "milestones": (20.0, 25.0)}
    config["evaluation"] |= {"split": "validation", "views": ("10x1",)}
    return complete(config)
