"""How much the motion of the foreground changes: what MSCL chooses clips by."""

import jax
import jax.numpy as jnp

from hcml_jax.ops.check import checked
from hcml_jax.ops.flow import flow_to_image
from hcml_jax.ops.resize import resize_area

WEIGHTINGS = ("softmax", "maximum", "none")  # the last of `motion_difference` alone


def motion_difference(flow, *, scale: int, weighting: str = "softmax") -> jax.Array:
    """How much each flow map's colours, weighted towards its motion boundaries, differ from the next one's.

    MSCL eq. 8 and 9: z_t = sum over space of |a_t - a_{t+1}|, a = colours of the flow times `foreground_weights`.

    Args:
      flow: [T, H, W, 2], consecutive flow maps of a clip, in pixels, floating.
      scale: r of `foreground_weights`.
      weighting: of `foreground_weights`; "none": colours count alike everywhere.

    Returns:
      z, float32 [T - 1]; 0 where nothing changes.

    Raises:
      ValueError: `flow` is not a floating array of that shape with two maps or more, `scale` is below 1, or there is no
        such `weighting`.
    """
    flow = checked("flow", flow, "T H W 2")
    _check(scale, weighting, WEIGHTINGS)
    if len(flow) < 2:
        raise ValueError(f"flow: expected two maps or more, found {len(flow)}")
    weighted = flow_to_image(flow)
    if weighting != "none":
        weighted *= foreground_weights(flow, scale=scale, weighting=weighting)[..., None]
    return jnp.linalg.norm(weighted[1:] - weighted[:-1], axis=-1).sum((-2, -1))


def foreground_weights(flow, *, scale: int, weighting: str = "softmax") -> jax.Array:
    """Coarse weights of the moving foreground: normalised means of motion boundaries over cells (MSCL eq. 8).

    Args:
      flow: [..., H, W, 2], in pixels, floating.
      scale: r, the side in pixels of the cells over which boundaries are averaged.
      weighting: "softmax", over space (the paper's), or "maximum": divided by the greatest (the released code's).

    Returns:
      float32 [..., H, W], 0 or more; in each map their sum is 1, or their maximum is 1 where anything moves.

    Raises:
      ValueError: `flow` is not a floating array of that shape, `scale` is below 1, or there is no such `weighting`.
    """
    flow = checked("flow", flow, "... H W 2").astype(jnp.float32)
    _check(scale, weighting, ("softmax", "maximum"))
    height, width = flow.shape[-3:-1]
    coarse = resize_area(_boundaries(flow)[..., None], -(-height // scale), -(-width // scale))
    cells, space = resize_area(coarse, height, width)[..., 0], (-2, -1)
    if weighting == "maximum":
        return cells / jnp.maximum(cells.max(space, keepdims=True), jnp.finfo(jnp.float32).tiny)
    return jax.nn.softmax(cells, axis=space)


def _check(scale: int, weighting: str, known: tuple[str, ...]) -> None:
    if scale < 1:
        raise ValueError(f"scale: expected 1 or more, found {scale}")
    if weighting not in known:
        raise ValueError(f"weighting: expected one of {', '.join(known)}, found {weighting!r}")


def _boundaries(flow: jax.Array) -> jax.Array:
    """Magnitude of the Sobel derivatives of both flow components, [..., H, W]; the border is edge-padded."""
    padded = jnp.pad(flow, [(0, 0)] * (flow.ndim - 3) + [(1, 1), (1, 1), (0, 0)], mode="edge")
    across = _filter(_filter(padded, -2, (-1, 0, 1)), -3, (1, 2, 1))
    down = _filter(_filter(padded, -3, (-1, 0, 1)), -2, (1, 2, 1))
    return jnp.sqrt(jnp.sum(jnp.square(across) + jnp.square(down), axis=-1))


def _filter(x: jax.Array, axis: int, taps: tuple[float, float, float]) -> jax.Array:
    """Apply a three-tap filter along an axis, without padding: the axis loses both end entries."""
    size = x.shape[axis] - 2
    return sum(tap * jax.lax.slice_in_dim(x, i, i + size, axis=x.ndim + axis) for i, tap in enumerate(taps))
