"""HCML on Motion Sprites: the demo. Yang et al., the stages of section 3 and the setting of Table 2 with few labels.

Command:  python launch.py --config configs/hcml_sprites.py --workdir runs/sprites
Cost:     21 minutes on 2 cores, and 4 of evaluation
Result:   top-1 90.2, elementary 94.0; linear probes with time kept 80.8, 94.5, 95.8 from level 0 to 2 (seed 0);
          docs/results.md has the rest
"""

from ml_collections import ConfigDict

from hcml_jax.experiment import complete


def stage(steps: int, learning_rate: float) -> dict:
    """A stage of AdamW with a short warm-up."""
    return {"steps": steps, "warmup": 50.0, "optimizer": "adamw", "learning_rate": learning_rate, "per_clips": 0}


def get_config() -> ConfigDict:
    """The experiment."""
    config = {
        "seed": 0,
        "method": {
            "name": "hcml",
            "backbone": {
                "name": "r2d_10",
                "width": 16,
                "stem_pool": False,
                "motion": {"reduction": 2, "channel_divisor": 1, "max_displacement": 2, "stride": 1},
            },
            "levels": ("reconstruction", "contrastive", "contrastive"),
            "flow_channels": (16, 16, 8, 8, 8),
            "smoothness_weight": 0.005,
            "positions": 16,
            "motion_share": 0.8,
            "temporal_weight": 1.0,
            "centre_targets": True,
            "joint_batch_norm_group": 0,
            "flip": False,  # it would turn "translate_left" into "translate_right"
            "stages": {
                "level0": stage(900, 1.5e-2),
                "level1": stage(1000, 3e-2),
                "level2": stage(600, 2e-2),
                "joint": stage(1200, 1e-2),
            },
        },
        "data": {
            "root": "data/sprites",
            "sprites": {
                "size": 48,
                "frames": 16,
                "train_per_class": 150,
                "test_per_class": 25,
                "val_per_class": 25,
                "radius": (8.0, 11.0),
                "pair_radius": (5.0, 7.0),
                "zoom": (1.05, 1.075),
                "closing_speed": (1.4, 2.1),
            },
            "frames": 16,
            "stride": 1,
            "jitter": False,
            "short_side": (48, 48),
            "crop": 48,
            "labels_per_class": 25,
        },
        "training": {"batch_size": 8, "log_every": 100, "checkpoint_every": 200, "validation_split": "val"},
        "evaluation": {"split": "test", "batch_size": 64},
    }
    return complete(config)
