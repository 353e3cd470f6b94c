"""Local motion contrast: features of single frames against those of the flow at the same time (MSCL)."""

import jax
import jax.numpy as jnp

from hcml_jax.contrastive.info_nce import InfoNCE
from hcml_jax.contrastive.streaming import FLOOR
from hcml_jax.ops.check import check_equal, checked
from hcml_jax.ops.normalise import unit_vectors


def local_motion_contrast(rgb, flow, rotated, *, temperature) -> jax.Array:
    """The losses of `local_motion_contrast_and_hits`, float32 [B, T]."""
    return local_motion_contrast_and_hits(rgb, flow, rotated, temperature=temperature).losses


def local_motion_contrast_and_hits(rgb, flow, rotated=None, valid=None, *, temperature) -> InfoNCE:
    """InfoNCE of each time's features of frames with the features of the flow at that time (MSCL eq. 5 and 6).

    Negatives are the other times of the same clip, and all times of its rotated flow.

    Args:
      rgb: [B, T, C], floating, features of frames.
      flow: [B, T, C], floating, features of flow at the same times.
      rotated: [B, T, C], floating, features of the rotated flow; None: there is none (eq. 5).
      valid: bool [B, T], the times with valid flow; only these are negatives. None: all.
      temperature: tau, above 0.

    Returns:
      losses float32 [B, T]; hits bool [B, T], whether the flow of the same time exceeds every negative. Both are
      meaningless at times that are not valid.

    Raises:
      ValueError: the shapes do not fit each other.
    """
    given = {"rgb": rgb, "flow": flow} | ({} if rotated is None else {"rotated": rotated})
    given = {name: checked(name, value, "B T C") for name, value in given.items()}
    for name, value in given.items():
        check_equal(f"{name}: the shape of rgb", value.shape, given["rgb"].shape)
    queries, *maps = (unit_vectors(value) for value in given.values())
    candidates = jnp.concatenate(maps, axis=1)
    precise = {"precision": jax.lax.Precision.HIGHEST}
    logits = jnp.einsum("bic,bjc->bij", queries, candidates, **precise) / temperature
    if valid is not None:
        check_equal("valid: clips and times of rgb", jnp.shape(valid), given["rgb"].shape[:2])
        logits = jnp.where(jnp.tile(jnp.asarray(valid), len(maps))[:, None], logits, FLOOR)
    positive = jnp.diagonal(logits, axis1=1, axis2=2)
    hits = jnp.sum(logits >= positive[..., None], axis=-1) == 1  # the positive itself
    return InfoNCE(jax.nn.logsumexp(logits, axis=-1) - positive, hits)
