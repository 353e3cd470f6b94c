"""Linear training on UCF-101: classifiers on a frozen network, on augmented clips.

The config's argument is "mscl" (MSCL Table 6: 88.7 from Kinetics-400; CoCLR's recipe), "fima" or "fima_i3d"
(FIMA Table 4: 73.1 with R(2+1)D-18, 76.4 with I3D; 71.2 and 75.3 from UCF-101). Rates from a tenth to 100 times each
paper's are tried in the same run, because CoCLR's code scales features to length 1 and then applies batch
normalisation, which makes features and gradients larger; this config has no such normalisation. A twentieth of the
training clips is held out to choose the rate.

Command:  python launch.py --config configs/linear_ucf101.py:fima --workdir runs/linear \\
              --config.data.root=/data/ucf101_split1 --config.init_from.path=runs/kinetics
Cost:     not yet run
Result:   not yet run
"""

from ml_collections import ConfigDict

from configs import finetune_ucf101
from hcml_jax.experiment import complete

STEPS = {"epochs": 100.0, "decay": "steps", "milestones": (60.0, 80.0)}
FIMA = {**STEPS, "learning_rate": 1.5, "per_clips": 16, "weight_decay": 0.0}
SCHEDULES = {
    "mscl": {**STEPS, "learning_rate": 0.1, "per_clips": 32, "weight_decay": 1e-3},
    "fima": FIMA,
    "fima_i3d": FIMA,
}
PAPERS = tuple(SCHEDULES)


def get_config(paper: str = "mscl") -> ConfigDict:
    """The experiment, by the schedule of `paper`."""
    config, schedule = finetune_ucf101.get_config(paper).to_dict(), SCHEDULES[paper]
    fields = "backbone", "motion_blocks", "flip", "area", "photometric", "dtype"
    kept = {name: config["method"][name] for name in fields}
    rates = {"rates": (1.0, 0.1, 0.3, 3.0, 10.0, 30.0, 100.0), "normalise": True}
    config["method"] = {"name": "linear", "stages": {"linear": schedule}, **kept, **rates}
    config["data"]["validation_share"] = 0.05
    config["training"] |= {"batch_size": schedule["per_clips"], "validation_split": "validation"}
    return complete(config)
