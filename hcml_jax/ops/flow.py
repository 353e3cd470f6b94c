"""Optical flow as colours, turned, and its error."""

import jax
import jax.numpy as jnp
import numpy as np

from hcml_jax.ops.check import check_equal, checked


def end_point_error(flow, target, valid=None) -> jax.Array:
    """Mean length of flow - target over the pixels of each frame. A measure, not a loss.

    Args:
      flow: [..., H, W, 2] in pixels, floating.
      target: [..., H, W, 2] in the same pixels.
      valid: [..., H, W], bool, the pixels that count; None: all. A frame without any gives NaN.

    Returns:
      float32 [...], in pixels.

    Raises:
      ValueError: the shapes do not fit each other.
    """
    flow = checked("flow", flow, "... H W 2").astype(jnp.float32)
    target = checked("target", target, "... H W 2").astype(jnp.float32)
    check_equal("target: the shape of flow", target.shape, flow.shape)
    if valid is not None:
        valid = jnp.asarray(valid).astype(bool)
        check_equal("valid: [..., H, W] of flow", valid.shape, flow.shape[:-1])
    error = jnp.linalg.norm(flow - target, axis=-1)
    return jnp.mean(error, axis=(-2, -1), where=valid)


def flow_to_image(flow, max_radius=None) -> jax.Array:
    """Optical flow in the colours of Baker et al. (2011), "A database and evaluation methodology
    for optical flow": hue is direction, saturation is length.

    Zero flow is white; flow to the right is red, down yellow, left sky blue, up violet. Flow longer
    than `max_radius` is darkened, not-finite flow is black.

    Args:
      flow: [..., H, W, 2], (u right, v down), floating.
      max_radius: the length that gets full saturation, in pixels: a number, or an array that
        broadcasts to [...]. None: the longest flow of each frame.

    Returns:
      float32 [..., H, W, 3] in [0, 1].

    Raises:
      ValueError: `flow` is not a floating [..., H, W, 2] array.
    """
    flow = checked("flow", flow, "... H W 2").astype(jnp.float32)
    known = jnp.all(jnp.isfinite(flow), axis=-1)
    u, v = jnp.moveaxis(jnp.where(known[..., None], flow, 0.0), -1, 0)
    length = jnp.hypot(u, v)
    if max_radius is None:
        max_radius = jnp.max(length, axis=(-2, -1))
    radius = jnp.broadcast_to(jnp.asarray(max_radius, jnp.float32)[..., None, None], length.shape)
    length = (length / jnp.maximum(radius, 1e-9))[..., None]
    hue = _hues(jnp.arctan2(-v, -u))
    color = jnp.where(length <= 1, 1 - length * (1 - hue), 0.75 * hue)
    return jnp.where(known[..., None], color, 0.0)


def rotate_flow(flow, angle) -> jax.Array:
    """Turns the vectors of flow where they stand: MSCL's flow rotation augmentation (section 3.3).

    Args:
      flow: [..., H, W, 2], (u right, v down), floating.
      angle: [...], in radians; broadcasts to the axes of `flow` before its frames. Positive angles turn (1, 0) towards
        (0, 1): clockwise on a screen.

    Returns:
      [..., H, W, 2], the dtype of `flow`.

    Raises:
      ValueError: `flow` is not a floating [..., H, W, 2] array, or `angle` does not broadcast.
    """
    flow = checked("flow", flow, "... H W 2")
    angle, frames = jnp.asarray(angle, jnp.float32), flow.shape[:-3]
    if angle.ndim > len(frames) or any(n not in (1, m) for n, m in zip(angle.shape[::-1], frames[::-1], strict=False)):
        raise ValueError(f"angle: expected a shape that broadcasts to {list(frames)}, found {list(angle.shape)}")
    angle = jnp.broadcast_to(angle, frames)[..., None, None]
    u, v = jnp.moveaxis(flow.astype(jnp.float32), -1, 0)
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    return jnp.stack([cos * u - sin * v, sin * u + cos * v], axis=-1).astype(flow.dtype)


def _hues(angle):
    """float32 [...] angles in [-pi, pi] -> [..., 3]: between neighbours on the wheel, linearly."""
    wheel = jnp.asarray(_color_wheel())
    position = (angle / np.pi + 1) / 2 * (len(wheel) - 1)
    first = jnp.floor(position).astype(jnp.int32)
    weight = (position - first.astype(jnp.float32))[..., None]
    return (1 - weight) * wheel[first] + weight * wheel[(first + 1) % len(wheel)]


def _color_wheel() -> np.ndarray:
    """float32 [55, 3] in [0, 1]: six ramps between red, yellow, green, cyan, blue and magenta.

    The lengths of the ramps make perceived hues about equally spaced (Baker et al.). They are in
    steps of 1/255 as in the published wheel.
    """
    corners = np.array([(1, 0, 0), (1, 1, 0), (0, 1, 0), (0, 1, 1), (0, 0, 1), (1, 0, 1), (1, 0, 0)])
    lengths = [15, 6, 4, 11, 13, 6]
    ramps = []
    for start, end, length in zip(corners[:-1], corners[1:], lengths, strict=True):
        ramp = np.floor(255 * np.arange(length) / length) / 255
        ramps.append(start + ramp[:, None] * (end - start))
    return np.concatenate(ramps).astype(np.float32)
