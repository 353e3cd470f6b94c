"""A method small enough for tests, and batches of random clips."""

import jax
import numpy as np

from hcml_jax.batch import ONE_CLIP, blank_batch
from hcml_jax.methods import build_method

BACKBONE = {
    "name": "r2d_10",
    "width": 8,
    "stem_pool": False,
    "motion": {"reduction": 2, "channel_divisor": 2, "max_displacement": 1, "stride": 1},
}
CLIP_SHAPE = (8, 16, 16, 3)


def schedule(steps=2, **fields):
    return {"steps": steps, "learning_rate": 0.01, "per_clips": 0, **fields}


def hcml_config(levels=("reconstruction", "contrastive", "contrastive"), joint=True, **fields):
    progressive = fields.get("progressive", True)
    names = [f"level{l}" for l in range(len(levels))] if progressive else ["levels"]
    stages = {name: schedule() for name in [*names, *(["joint"] if joint else [])]}
    return {
        "name": "hcml",
        "backbone": BACKBONE,
        "levels": levels,
        "flow_channels": (4, 4, 4, 4, 4),
        "positions": 4,
        "joint_batch_norm_group": 0,
        "stages": stages,
        **fields,
    }


def hcml(num_classes=3, **fields):
    return build_method(hcml_config(**fields), num_classes)


def batch(clips=4, seed=0, clip_shape=CLIP_SHAPE, classes=3, reads=ONE_CLIP):
    rng = np.random.default_rng(seed)
    blank = blank_batch(clips, clip_shape, reads)
    return blank._replace(
        clip=rng.integers(0, 256, blank.clip.shape, dtype=np.uint8),
        consecutive=np.ones_like(blank.consecutive),
        label=(np.arange(clips) % classes).astype(np.int32),
        index=np.arange(clips, dtype=np.int32),
        valid=np.ones(clips, bool),
        flow=None if blank.flow is None else rng.normal(size=blank.flow.shape).astype(np.float32),
        future=None if blank.future is None else rng.integers(0, 256, blank.future.shape, dtype=np.uint8),
    )


def init(method, seed=0):
    return jax.jit(method.init)(jax.random.key(seed), batch())
