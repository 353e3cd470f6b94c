"""CGM-Net with 3D-ResNet-18 on Kinetics-400: the paper's recipe (4.2) with the backbone of its ablations (4.3).

Motion maps are learnt without labels, then with them. The paper runs the first stage on 500,000 clips of YouTube-8M; so
does this file, given their folder and no table:

    python launch.py --config configs/cgm_kinetics_r3d18.py --workdir runs/cgm_youtube8m \\
        --config.data.root=/data/youtube8m

and a run with the labels of Kinetics starts from it: --config.init_from.path=runs/cgm_youtube8m
--config.training.first_stage=joint. The paper divides the rate by ten every 50 epochs and does not say when it stops;
here after 150. It crops each clip at one of five places; here anywhere.

Command:  python launch.py --config configs/cgm_kinetics_r3d18.py --workdir runs/cgm_kinetics_r3d18 \\
              --config.data.root=/data/kinetics400
Cost:     not yet run
Result:   not yet run
"""

from ml_collections import ConfigDict

from hcml_jax.experiment import complete

SCHEDULE = {
    **{"epochs": 150.0, "decay": "steps", "milestones": (50.0, 100.0)},
    **{"optimizer": "adamw", "learning_rate": 1e-3, "per_clips": 64, "weight_decay": 0.0},
}


def get_config() -> ConfigDict:
    """The experiment."""
    config = {
        "seed": 0,
        "method": {
            "name": "cgm_net",
            "backbone": {"name": "resnet3d_18"},
            "flip": True,
            "dtype": "bfloat16",
            "stages": {"motion": SCHEDULE, "joint": SCHEDULE},
        },
        "data": {
            "root": "data/kinetics400",
            "frames": 16,
            "stride": 1,
            "jitter": True,
            "short_clips": "loop",
            "short_side": (128, 128),
            "crop": 112,
            "skip_bad": True,
            "validation_share": 0.01,
        },
        "training": {"batch_size": 64, "log_every": 50, "checkpoint_every": 1000, "validation_split": "validation"},
        "evaluation": {
            "split": "val",
            "protocols": ("recognition", "prediction", "cost"),
            "views": ("1x1", "10xcorners+flip"),
        },
    }
    return complete(config)
