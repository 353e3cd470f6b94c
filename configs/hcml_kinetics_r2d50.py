"""HCML with R2D-50 on Kinetics-400: the paper's recipe (C.2; Tables 2 and 3: top-1 67.3 from one clip, 74.8 from 30).

The table has columns path, label, split ("train", "val"). The paper has 8 clips on each GPU and does not say how
many GPUs; a batch of 512 is 64 of them.

Command:  python launch.py --config configs/hcml_kinetics_r2d50.py --workdir runs/kinetics \\
              --config.data.root=/data/kinetics400
Cost:     not yet run
Result:   not yet run
"""

from ml_collections import ConfigDict

from hcml_jax.experiment import complete


def stage(epochs: float, warmup: float) -> dict:
    """A stage of the paper's SGD: 0.0025 for each 8 clips, scaled linearly."""
    return {"epochs": epochs, "warmup": warmup, "learning_rate": 0.0025, "per_clips": 8}


def get_config() -> ConfigDict:
    """The experiment."""
    config = {
        "seed": 0,
        "method": {
            "name": "hcml",
            "backbone": {"name": "r2d_50"},
            "levels": ("reconstruction", "contrastive", "contrastive"),
            "photometric_size": 112,
            "joint_batch_norm_group": 8,
            "flip": True,
            "dtype": "bfloat16",
            "stages": {
                "level0": stage(80.0, 10.0),
                "level1": stage(80.0, 10.0),
                "level2": stage(80.0, 10.0),
                "joint": stage(200.0, 40.0),
            },
        },
        "data": {
            "root": "data/kinetics400",
            "frames": 16,
            "stride": 2,
            "jitter": True,
            "short_clips": "loop",
            "short_side": (256, 320),
            "crop": 224,
            "skip_bad": True,
            "validation_share": 0.01,
        },
        "training": {"batch_size": 512, "log_every": 50, "checkpoint_every": 1000, "validation_split": "validation"},
        # The paper tests 30 views of 256 pixels. Read-outs of a map of 2,048 channels would be large.
        "evaluation": {
            "split": "val",
            "protocols": ("recognition", "flow", "neighbours", "retrieval", "cost"),
            "views": ("1x1", "10x3"),
            "crop": 256,
            "readouts": (),
            "baselines": ("frame_difference",),
        },
    }
    return complete(config)
