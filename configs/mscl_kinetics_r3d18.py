"""MSCL with R3D-18 on Kinetics-400: the paper's recipe (4.2; Tables 6 and 8: UCF-101 fine-tuned 90.7, linear 86.1).

The table has columns path, label, split ("train", "val"); labels serve the evaluation alone. Flow is RAFT's, computed
once (docs/data.md):
    python -m hcml_jax.compute_flow /data/kinetics400 --stride 16 --every 8 --out /data/kinetics400/flow \\
        --provider raft:weights/raft_large
The paper does not say over how many clips batch statistics are taken; here 16, as on 8 GPUs.
`finetune_ucf101.py:mscl`, `linear_ucf101.py:mscl` and `finetune_ssv2.py` start from this run.

Command:  python launch.py --config configs/mscl_kinetics_r3d18.py --workdir runs/mscl_kinetics \\
              --config.data.root=/data/kinetics400 --config.data.flow=/data/kinetics400/flow
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
            "name": "mscl",
            "backbone": {"name": "r3d_18"},
            "flow_backbone": {"name": "resnet_18", "width": 8},
            "local_stages": ("res3", "res4", "res5"),
            "queue": 65_536,
            "batch_norm_group": 16,
            "dtype": "bfloat16",
            "stages": {"contrast": {"epochs": 200.0, "learning_rate": 0.01, "per_clips": 128, "weight_decay": 1e-4}},
        },
        "data": {
            "root": "data/kinetics400",
            "frames": 8,
            "stride": 16,
            "jitter": True,
            "short_clips": "loop",
            "short_side": (128, 128),
            "crop": 112,
            "flow": "data/kinetics400/flow",
            "moving": True,
            "skip_bad": True,
            "validation_share": 0.01,
        },
        "training": {"batch_size": 128, "log_every": 50, "checkpoint_every": 1000, "validation_split": "validation"},
        # The paper retrieves and classifies UCF-101 and HMDB51; neighbours here tell how training went.
        "evaluation": {
            "split": "val",
            "protocols": ("neighbours", "retrieval", "cost"),
            "readouts": (),
            "baselines": ("frame_difference",),
        },
    }
    return complete(config)
