"""FIMA with R(2+1)D-18 on Kinetics-400: the paper's recipe (A.3; Table 4: UCF-101 linear 73.1, fine-tuned 86.7).

The table has columns path, label, split ("train", "val"); only the evaluation uses labels. Queues are longer than on
UCF-101, and L_Pix has its own. `finetune_ucf101.py:fima`, `finetune_diving48.py` (Table 5: 74.7) and the like start
from this run.

Command:  python launch.py --config configs/fima_kinetics_r2plus1d18.py --workdir runs/fima_kinetics \\
              --config.data.root=/data/kinetics400
Cost:     not yet run
Result:   not yet run
"""

from ml_collections import ConfigDict

from configs import fima_ucf101_r2plus1d18
from hcml_jax.experiment import complete


def get_config() -> ConfigDict:
    """The experiment."""
    config = fima_ucf101_r2plus1d18.get_config().to_dict()
    config["method"] |= {"queue": 65_536, "pixel_queue": 31_360}
    config["method"]["stages"]["contrast"] |= {"epochs": 100.0, "learning_rate": 0.01, "per_clips": 64}
    config["data"] |= {"root": "data/kinetics400", "skip_bad": True, "validation_share": 0.01}
    config["training"]["batch_size"] = 64
    config["evaluation"]["split"] = "val"
    return complete(config)
