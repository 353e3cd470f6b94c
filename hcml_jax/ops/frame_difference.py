"""Differences of frames as clips: what moves without what stands still (FIMA)."""

import jax
import jax.numpy as jnp

from hcml_jax.ops.check import check_equal, checked

FIRSTS = ("repeat", "wrap")


def frame_difference(clip, *, first: str = "repeat", consecutive=None) -> jax.Array:
    """Difference of each frame from the one before it, as an image: (x_t - x_{t-1} + 1) / 2 (FIMA section 3.1).

    Args:
      clip: [B, T, H, W, C] in [0, 1], floating; two frames or more.
      first: the difference of frame 0, which has no predecessor. "repeat": the difference of frame 1; "wrap": frame 0
        minus the last frame (as in the released code).
      consecutive: bool [B, T - 1], whether the next frame follows in the video; where it does not, the difference is
        that of no change. None: True everywhere.

    Returns:
      [B, T, H, W, C] in [0, 1], the dtype of `clip`; 1/2 where nothing changes.

    Raises:
      ValueError: the shapes do not fit, or there is no such `first`.
    """
    clip = checked("clip", clip, "B T H W C")
    if clip.shape[1] < 2:
        raise ValueError(f"clip: expected two frames or more, found {clip.shape[1]}")
    if first not in FIRSTS:
        raise ValueError(f"first: expected one of {', '.join(FIRSTS)}, found {first!r}")
    changes = clip[:, 1:] - clip[:, :-1]
    if consecutive is not None:
        check_equal("consecutive: clips and pairs of frames", jnp.shape(consecutive), changes.shape[:2])
        changes = jnp.where(jnp.asarray(consecutive)[..., None, None, None], changes, 0)
    before = changes[:, :1] if first == "repeat" else clip[:, :1] - clip[:, -1:]
    return (jnp.concatenate([before, changes], axis=1) + 1) / 2
