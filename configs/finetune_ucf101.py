"""Fine-tuning on UCF-101 of a network that was trained elsewhere, by the schedule of a paper.

The config's argument says which: "hcml" (HCML Table 4: 97.8, the mean over three splits), "coclr" (HCML Table 5:
87.1), "mscl" (MSCL Table 6: 91.5), "fima" or "fima_i3d" (FIMA Table 4: 86.7 with R(2+1)D-18, 88.5 with I3D; 84.1 and
84.2 from UCF-101); all others from Kinetics-400. HCML Table 5 and MSCL refer to CoCLR's recipe. Its published code
differs from this in three things: Adam with decay in the gradient (here decoupled), a tenth of the rate for the
backbone (here the same for all) and colour augmentation. Its test on five crops of each of ten clips, mirrored too, is
reported beside ten centre clips. MSCL does not name the stride of its 16 frames; here 4. The backbone must be that of
the run that the weights come from.

`python -m data_pipelines.annotate ucf101 DIR` writes the table of each of the three splits;
`python -m hcml_jax.evaluation.compare` of three runs prints their mean.

Command:  python launch.py --config configs/finetune_ucf101.py:hcml --workdir runs/finetuned \\
              --config.data.root=/data/ucf101 --config.data.table=fold1.csv \\
              --config.init_from.path=runs/kinetics
Cost:     not yet run
Result:   not yet run
"""

from ml_collections import ConfigDict

from hcml_jax.experiment import complete

COCLR = {
    **{"epochs": 500.0, "optimizer": "adamw", "learning_rate": 1e-3, "per_clips": 32, "weight_decay": 1e-3},
    **{"decay": "steps", "milestones": (400.0, 450.0)},
}
FIMA = {
    **{"epochs": 150.0, "learning_rate": 0.0033, "per_clips": 16},
    **{"decay": "steps", "milestones": (60.0, 120.0)},
}
SCHEDULES = {
    "hcml": {"epochs": 30.0, "learning_rate": 0.002, "per_clips": 32},
    "coclr": COCLR,
    "mscl": COCLR,
    "fima": FIMA,
    "fima_i3d": FIMA,
}
# The colour augmentation of its pretraining, without blur (A.4).
FIMA_FIELDS = {"dropout": 0.7, "area": (0.2, 1.0), "photometric": {"jitter": 0.2, "grayscale": 0.2, "blur": 0.0}}
METHODS = {
    "hcml": {"backbone": {"name": "r2d_50"}, "motion_blocks": ("res2", "res3", "res4")},
    "coclr": {
        "backbone": {"name": "s3d"},
        "motion_blocks": ("conv2", "mixed3", "mixed4"),
        "dropout": 0.9,
        "area": (0.2, 1.0),
    },
    "mscl": {"backbone": {"name": "r3d_18"}, "dropout": 0.9, "area": (0.2, 1.0)},
    "fima": {"backbone": {"name": "r2plus1d_18"}, **FIMA_FIELDS},
    "fima_i3d": {"backbone": {"name": "i3d"}, **FIMA_FIELDS},
}
CLIPS = {
    "hcml": {"frames": 16, "stride": 2, "short_side": (256, 320), "crop": 224},
    "coclr": {"frames": 32, "stride": 1, "short_side": (150, 150), "crop": 128},
    "mscl": {"frames": 16, "stride": 4, "short_side": (128, 128), "crop": 112},
    "fima": {"frames": 16, "stride": 2, "short_side": (128, 128), "crop": 112},
    "fima_i3d": {"frames": 16, "stride": 2, "short_side": (256, 256), "crop": 224},
}
VIEWS = {"hcml": ("1x1", "10x3"), "coclr": ("10x1", "10xcorners+flip"), "mscl": ("10x1", "10xcorners+flip")}
PAPERS = tuple(SCHEDULES)


def get_config(paper: str = "hcml") -> ConfigDict:
    """The experiment, by the schedule of `paper`."""
    schedule = SCHEDULES[paper]
    config = {
        "seed": 0,
        "method": {
            "name": "supervised",
            "flip": True,
            "dtype": "bfloat16",
            "stages": {"supervised": schedule},
            **METHODS[paper],
        },
        "data": {"root": "data/ucf101", "short_clips": "loop", **CLIPS[paper]},
        "training": {"batch_size": schedule["per_clips"], "log_every": 50, "checkpoint_every": 1000},
        "evaluation": {"split": "test", "protocols": ("recognition", "cost"), "views": VIEWS.get(paper, ("10x1",))},
        "init_from": {"path": "runs/pretrained", "prefixes": ("backbone",)},
    }
    return complete(config)
