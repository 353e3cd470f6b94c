"""The terms of frame reconstruction: HCML, equations 1 and 2."""

import jax
import jax.numpy as jnp

from hcml_jax.ops.check import check_equal, checked


def charbonnier(z, alpha: float = 0.45, epsilon: float = 1e-3) -> jax.Array:
    """Generalised Charbonnier penalty (z^2 + epsilon^2)^alpha, elementwise (HCML, section 3.1)."""
    return (jnp.square(z) + epsilon**2) ** alpha


def photometric_loss(target, warped, valid, *, alpha=0.45, epsilon=1e-3, normalise_by_valid=False) -> jax.Array:
    """Charbonnier penalty of target - warped (HCML, equation 1).

    The penalty is taken for each channel and averaged over channels, so that the loss does not
    depend on their number. Invalid pixels count 0; whatever they hold (also NaN) has no effect.

    Where a flow leads out of the frame everywhere, the loss is 0 and has no gradient, as equation 1
    has it: callers report the share of valid pixels.

    Args:
      target: [..., H, W, C], floating; HCML: frames t = 0..T-2, in [0, 1].
      warped: [..., H, W, C], the next frames warped back.
      valid: [..., H, W], bool, or numbers of which 0 means invalid.
      alpha: exponent of the penalty.
      epsilon: its rounding near zero, in units of the images.
      normalise_by_valid: divide by the number of valid pixels, 0 where there are none (as UnFlow
        does), and not by the number of all pixels (equation 1).

    Returns:
      float32 scalar.

    Raises:
      ValueError: the shapes do not fit each other, or the images are not floating.
    """
    target = checked("target", target, "... H W C").astype(jnp.float32)
    warped = checked("warped", warped, "... H W C").astype(jnp.float32)
    check_equal("warped: the shape of target", warped.shape, target.shape)
    valid = jnp.asarray(valid).astype(bool)
    check_equal("valid: [..., H, W] of target", valid.shape, target.shape[:-1])
    # Selected before the penalty as well: a NaN that is masked only after it has a NaN gradient.
    difference = jnp.where(valid[..., None], target - warped, 0.0)
    penalty = jnp.mean(charbonnier(difference, alpha, epsilon), axis=-1)
    pixels = jnp.maximum(jnp.sum(valid), 1) if normalise_by_valid else valid.size
    return jnp.sum(penalty, where=valid) / jnp.asarray(pixels, jnp.float32)


def smoothness_loss(flow, *, alpha=0.45, epsilon=1e-3) -> jax.Array:
    """Charbonnier penalty of the first differences of a flow (HCML, equation 2).

    The sum of four terms, U and V differenced in x and in y; each is a mean over frames and over
    pixels, so that its weight does not depend on resolution (the paper averages over frames only).

    Args:
      flow: [..., H, W, 2], (u, v) in pixels, floating; H and W at least 2.
      alpha: exponent of the penalty.
      epsilon: its rounding near zero, in pixels.

    Returns:
      float32 scalar.

    Raises:
      ValueError: `flow` is not a floating [..., H, W, 2] array, or smaller than 2 x 2.
    """
    flow = checked("flow", flow, "... H W 2").astype(jnp.float32)
    if min(flow.shape[-3:-1]) < 2:
        raise ValueError(f"flow: expected H and W of at least 2, found {list(flow.shape)}")
    differences = (jnp.diff(flow, axis=-2), jnp.diff(flow, axis=-3))
    # The mean over both components of flow is half the sum of the terms of U and V.
    return sum(2 * jnp.mean(charbonnier(d, alpha, epsilon)) for d in differences)
