"""Backward warping of images by optical flow."""

import jax
import jax.numpy as jnp

from hcml_jax.ops.check import check_equal, checked


def backward_warp(images, flow) -> tuple[jax.Array, jax.Array]:
    """Samples images at (x + u, y + v), bilinearly.

    With images = frame t+1 and the flow from t to t+1, the result looks like frame t. (HCML,
    section 3.1; spatial transformer sampling, Jaderberg et al. 2015.)

    Args:
      images: [..., H, W, C], floating.
      flow: [..., H, W, 2], (u right, v down) in pixels. Coordinates are float32 whatever its dtype.

    Returns:
      warped: [..., H, W, C], the dtype of `images`. Positions outside are clamped to the border.
      valid: bool [..., H, W], True where the sampled position lies inside the image,
        [0, W-1] x [0, H-1]. Not-finite flow is not valid.

    Raises:
      ValueError: the shapes do not fit each other, or images or flow are not floating.
    """
    images = checked("images", images, "... H W C")
    flow = checked("flow", flow, "... H W 2")
    check_equal("flow and images: [..., H, W] of flow", flow.shape[:-1], images.shape[:-1])
    height, width, channels = images.shape[-3:]
    u, v = (flow[..., i].astype(jnp.float32) for i in (0, 1))
    x = jax.lax.broadcasted_iota(jnp.float32, u.shape, u.ndim - 1) + u
    y = jax.lax.broadcasted_iota(jnp.float32, v.shape, v.ndim - 2) + v
    left, right, x_weight, x_valid = _neighbours(x, width)
    top, bottom, y_weight, y_valid = _neighbours(y, height)
    pixels = images.reshape(-1, height * width, channels)

    def sample(y, x):
        index = (y * width + x).reshape(-1, height * width, 1)
        values = jnp.take_along_axis(pixels, index, axis=1, mode="promise_in_bounds")
        return values.reshape(images.shape).astype(jnp.float32)

    upper = _mix(sample(top, left), sample(top, right), x_weight)
    lower = _mix(sample(bottom, left), sample(bottom, right), x_weight)
    return _mix(upper, lower, y_weight).astype(images.dtype), x_valid & y_valid


def _neighbours(position, size):
    """The two grid positions around each position, the weight of the second, and validity."""
    valid = (position >= 0) & (position <= size - 1)
    position = jnp.where(jnp.isfinite(position), position, 0.0).clip(0, size - 1)
    first = jnp.floor(position).astype(jnp.int32)
    second = jnp.minimum(first + 1, size - 1)
    return first, second, position - first.astype(jnp.float32), valid


def _mix(first, second, weight):
    weight = weight[..., None]
    return (1 - weight) * first + weight * second  # exact at weights 0 and 1
