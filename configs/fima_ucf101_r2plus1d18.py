"""FIMA with R(2+1)D-18 on UCF-101: the paper's recipe (A.3; Table 4: linear 71.2, fine-tuned 84.1; Table 6: R@1 52.2).

The table has columns path, label, split ("train", "test") of split 1; only the evaluation uses labels. Videos of fewer
than 32 frames are looped. `finetune_ucf101.py:fima`, `linear_ucf101.py:fima`, `retrieval_ucf101.py:fima` and those of
HMDB51 start from this run.

Command:  python launch.py --config configs/fima_ucf101_r2plus1d18.py --workdir runs/fima_ucf101 \\
              --config.data.root=/data/ucf101
Cost:     not yet run
Result:   not yet run
"""

from ml_collections import ConfigDict

from hcml_jax.experiment import complete


def get_config() -> ConfigDict:
    """The experiment."""
    config = {
        "seed": 0,
        "method": {
            "name": "fima",
            "backbone": {"name": "r2plus1d_18"},
            "dtype": "bfloat16",
            "stages": {"contrast": {"epochs": 200.0, "learning_rate": 0.00375, "per_clips": 24, "weight_decay": 1e-4}},
        },
        "data": {
            "root": "data/ucf101",
            "frames": 32,  # of which the method shows every second
            "stride": 1,
            "jitter": True,
            "short_clips": "loop",
            "short_side": (128, 128),
            "crop": 112,
            "validation_share": 0.05,
        },
        "training": {"batch_size": 24, "log_every": 50, "checkpoint_every": 1000, "validation_split": "validation"},
        "evaluation": {
            "split": "test",
            "protocols": ("neighbours", "retrieval", "cost"),
            "readouts": (),
            "baselines": ("frame_difference",),
        },
    }
    return complete(config)
