"""Motion maps (CGM-Net): motion as one small filter for each pixel, shared by the colours."""

import math

import jax
import jax.numpy as jnp

from hcml_jax.ops.check import check_equal, checked


def apply_motion_maps(frames, maps) -> jax.Array:
    """Frames moved by their motion maps (CGM-Net eq. 1).

    out[y, x] = sum over m and n from -r to r of maps[y, x, (m + r) k + (n + r)] frames[y - n, x - m], k = 2 r + 1: a
    convolution, whose filter is another one at each pixel. Beyond the border frames go on as they are there.

    Args:
      frames: [..., H, W, C], floating.
      maps: [..., H, W, k k], floating; k is odd, and no larger than H and W.

    Returns:
      [..., H, W, C], the dtype of `frames`; sums are taken in float32.

    Raises:
      ValueError: the shapes do not fit, or k is not an odd number up to H and W.
    """
    frames, maps = checked("frames", frames, "... H W C"), checked("maps", maps, "... H W M")
    check_equal("maps: frames [..., H, W]", maps.shape[:-1], frames.shape[:-1])
    size = filter_size(maps)
    if size > min(frames.shape[-3:-1]):
        height, width = frames.shape[-3:-1]
        raise ValueError(f"maps: filters of {size} x {size} are larger than the {height} x {width} pixels they move")
    radius = size // 2
    spread = [(0, 0)] * (frames.ndim - 3) + [(radius, radius), (radius, radius), (0, 0)]
    padded = jnp.pad(frames.astype(jnp.float32), spread, mode="edge")
    return _filter(padded, maps.astype(jnp.float32)).astype(frames.dtype)


def guided_similarity(maps, motion, context) -> jax.Array:
    """How alike motion features are to the context that motion maps bring to their place (CGM-Net eq. 2, S).

    out[y, x] = 1/C sum over c, m and n of maps[y, x, (m + r) k + (n + r)] motion[y, x, c] context[y - n, x - m, c].

    Args:
      maps: [..., H, W, k k], floating; see `apply_motion_maps`.
      motion: [..., H, W, C], floating.
      context: [..., H, W, C], floating.

    Returns:
      float32 [..., H, W].

    Raises:
      ValueError: as `apply_motion_maps`.
    """
    motion, context = checked("motion", motion, "... H W C"), checked("context", context, "... H W C")
    check_equal("context: motion", context.shape, motion.shape)
    moved = apply_motion_maps(context.astype(jnp.float32), maps)
    return jnp.mean(motion.astype(jnp.float32) * moved, axis=-1)


def filter_size(maps: jax.Array) -> int:
    """k of maps [..., k k]; raises ValueError if it is no odd number."""
    size = math.isqrt(maps.shape[-1])
    if size * size != maps.shape[-1] or size % 2 == 0:
        raise ValueError(f"maps: expected k x k numbers at a pixel, k odd; found {maps.shape[-1]}")
    return size


# Sums of shifted products, which XLA fuses: no copy of the frames is held for each shift. The gradients are written
# out: derived by jax, at [8, 112, 112, 3] and k = 11 they took ten times as long on CPU.
@jax.custom_vjp
def _filter(padded: jax.Array, maps: jax.Array) -> jax.Array:
    """[..., H + 2 r, W + 2 r, C] filtered by [..., H, W, k k]: [..., H, W, C]."""
    entries = range(maps.shape[-1])
    return sum(maps[..., entry, None] * _window(padded, entry, maps) for entry in entries)


def _forward(padded, maps):
    return _filter(padded, maps), (padded, maps)


def _backward(inputs, gradient):
    padded, maps = inputs
    # One entry after another: of a sum of products for each, XLA on CPU holds all products at once.
    of_entries = jax.lax.map(
        lambda entry: jnp.sum(gradient * _window(padded, entry, maps), axis=-1), jnp.arange(maps.shape[-1])
    )
    return _spread(maps, gradient), jnp.moveaxis(of_entries, 0, -1)


_filter.defvjp(_forward, _backward)


def _window(padded: jax.Array, entry, maps: jax.Array) -> jax.Array:
    """What an entry of the maps multiplies, [..., H, W, C]."""
    size, (height, width) = filter_size(maps), maps.shape[-3:-1]
    column, row = entry // size, entry % size
    rows = jax.lax.dynamic_slice_in_dim(padded, size - 1 - row, height, padded.ndim - 3)
    return jax.lax.dynamic_slice_in_dim(rows, size - 1 - column, width, padded.ndim - 2)


def _spread(maps: jax.Array, gradient: jax.Array) -> jax.Array:
    """The gradient of what `_filter` pads: of each pixel, wherever a filter reached it."""
    size, (height, width) = filter_size(maps), maps.shape[-3:-1]
    reach = size - 1
    margin = [(0, 0)] * (maps.ndim - 3) + [(reach, reach), (reach, reach), (0, 0)]
    maps, gradient = jnp.pad(maps, margin), jnp.pad(gradient, margin)
    total = 0.0
    for entry in range(size * size):
        column, row = divmod(entry, size)
        reached = (..., slice(row, row + height + reach), slice(column, column + width + reach))
        total += maps[*reached, entry, None] * gradient[*reached, :]
    return total
