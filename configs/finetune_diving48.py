"""Fine-tuning on Diving-48 (v2) of a network that was trained elsewhere: FIMA Table 5 (74.7 from Kinetics-400).

With FIMA's schedule. The paper names no dropout for this dataset; here it is that of HMDB51.

Command:  python launch.py --config configs/finetune_diving48.py --workdir runs/finetuned \\
              --config.data.root=/data/diving48 --config.init_from.path=runs/kinetics
Cost:     not yet run
Result:   not yet run
"""

from ml_collections import ConfigDict

from configs import finetune_hmdb51
from hcml_jax.experiment import complete


def get_config() -> ConfigDict:
    """The experiment."""
    config = finetune_hmdb51.get_config("fima").to_dict()
    config["data"]["root"] = "data/diving48"
    return complete(config)
