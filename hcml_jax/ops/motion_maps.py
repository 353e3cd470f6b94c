"""Motion maps (CGM-Net): motion as one small filter for each pixel, shared by the colours."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from hcml_jax.ops.check import check_equal, checked


def apply_motion_maps(frames, maps, *, dilation: int = 1) -> jax.Array:
    """Frames moved by their motion maps (CGM-Net eq. 1).

    out[y, x] = sum over m and n from -r to r of maps[y, x, (m + r) k + (n + r)] frames[y - n, x - m], k = 2 r + 1: a
    convolution with a different filter at each pixel. Frames are edge-padded at the border.

    Args:
      frames: [..., H, W, C], floating.
      maps: [..., H, W, k k], floating; k is odd.
      dilation: pixels between neighbouring filter entries (it multiplies n and m in `frames` above); the dilated
        filter must not be larger than H or W.

    Returns:
      [..., H, W, C], the dtype of `frames`; sums are taken in float32.

    Raises:
      ValueError: the shapes do not fit, k is no odd number, or a filter is larger than the frame.
    """
    frames, maps = checked("frames", frames, "... H W C"), checked("maps", maps, "... H W M")
    check_equal("maps: frames [..., H, W]", maps.shape[:-1], frames.shape[:-1])
    if dilation < 1:
        raise ValueError(f"dilation: expected 1 or more, found {dilation}")
    reach = (filter_size(maps) - 1) * dilation
    if reach >= min(frames.shape[-3:-1]):
        height, width = frames.shape[-3:-1]
        raise ValueError(
            f"maps: filters of {reach + 1} x {reach + 1} are larger than the {height} x {width} pixels they move"
        )
    padded = _pad(frames.astype(jnp.float32), reach // 2, mode="edge")
    return _filter(padded, maps.astype(jnp.float32), dilation).astype(frames.dtype)


def guided_similarity(maps, motion, context) -> jax.Array:
    """Similarity of motion features to the context that motion maps move to the same pixel (CGM-Net eq. 2, S).

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
    check_equal("maps: motion [..., H, W]", jnp.shape(maps)[:-1], motion.shape[:-1])
    moved = apply_motion_maps(context.astype(jnp.float32), maps)
    return jnp.mean(motion.astype(jnp.float32) * moved, axis=-1)


def flow_of_maps(maps, *, dilation: int = 1) -> jax.Array:
    """Optical flow: the mean displacement of each pixel over the filters that read it, weighted by entries above 0.

    flow[y, x] = sum over m and n of w (m, n) / sum of w, where w is maps[y + n, x + m, (m + r) k + (n + r)], or 0 if
    that is negative.

    Args:
      maps: [..., H, W, k k], floating; see `apply_motion_maps`.
      dilation: likewise.

    Returns:
      float32 [..., H, W, 2], (u right, v down) in pixels of the maps; 0 where no filter takes the pixel.

    Raises:
      ValueError: k is no odd number.
    """
    maps = checked("maps", maps, "... H W M")
    size, (height, width) = filter_size(maps), maps.shape[-3:-1]
    padded = _pad(jnp.maximum(maps.astype(jnp.float32), 0.0), dilation * (size - 1) // 2)
    total, moved = jnp.zeros(maps.shape[:-1]), jnp.zeros((*maps.shape[:-1], 2))
    for entry in range(size * size):
        column, row = (dilation * place for place in divmod(entry, size))
        weight = padded[..., row : row + height, column : column + width, entry]
        step = np.float32([column, row]) - dilation * (size - 1) // 2
        total, moved = total + weight, moved + weight[..., None] * step
    return moved / jnp.where(total > 0, total, 1.0)[..., None]


def copying_filter(size: int) -> np.ndarray:
    """The filter that copies a pixel, float32 [k k]."""
    return (np.arange(size**2) == size**2 // 2).astype(np.float32)


def filter_size(maps: jax.Array) -> int:
    """k of maps [..., k k]; raises ValueError if it is no odd number."""
    size = math.isqrt(maps.shape[-1])
    if size * size != maps.shape[-1] or size % 2 == 0:
        raise ValueError(f"maps: expected k x k numbers at a pixel, k odd; found {maps.shape[-1]}")
    return size


# Sums of shifted products, which XLA fuses: no copy of the frames is held for each shift. The gradients are written
# out: derived by jax they take two to three times as long on CPU, and two to six times the memory
# (docs/performance.md).
@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _filter(padded: jax.Array, maps: jax.Array, dilation: int) -> jax.Array:
    """[..., H + d (k - 1), W + d (k - 1), C] filtered by [..., H, W, k k]: [..., H, W, C]."""
    entries = range(maps.shape[-1])
    return sum(maps[..., entry, None] * _window(padded, entry, maps, dilation) for entry in entries)


def _forward(padded, maps, dilation):
    return _filter(padded, maps, dilation), (padded, maps)


def _backward(dilation, inputs, gradient):
    padded, maps = inputs
    # One entry at a time: with a sum of products for each entry, XLA on CPU would hold all products at once.
    of_entries = jax.lax.map(
        lambda entry: jnp.sum(gradient * _window(padded, entry, maps, dilation), axis=-1), jnp.arange(maps.shape[-1])
    )
    return _spread(maps, gradient, dilation), jnp.moveaxis(of_entries, 0, -1)


_filter.defvjp(_forward, _backward)


def _window(padded: jax.Array, entry, maps: jax.Array, dilation: int) -> jax.Array:
    """What an entry of the maps multiplies, [..., H, W, C]."""
    size, (height, width) = filter_size(maps), maps.shape[-3:-1]
    row, column = (dilation * (size - 1 - place) for place in (entry % size, entry // size))
    rows = jax.lax.dynamic_slice_in_dim(padded, row, height, padded.ndim - 3)
    return jax.lax.dynamic_slice_in_dim(rows, column, width, padded.ndim - 2)


def _spread(maps: jax.Array, gradient: jax.Array, dilation: int) -> jax.Array:
    """The gradient of the padded frames: for each pixel, summed over the filters that read it."""
    size, (height, width) = filter_size(maps), maps.shape[-3:-1]
    reach = dilation * (size - 1)
    maps, gradient = _pad(maps, reach), _pad(gradient, reach)
    total = 0.0
    for entry in range(size * size):
        column, row = (dilation * place for place in divmod(entry, size))
        reached = (..., slice(row, row + height + reach), slice(column, column + width + reach))
        total += maps[*reached, entry, None] * gradient[*reached, :]
    return total


def _pad(grid: jax.Array, margin: int, mode: str = "constant") -> jax.Array:
    """[..., H, W, C] with a margin round H and W."""
    return jnp.pad(grid, [(0, 0)] * (grid.ndim - 3) + [(margin, margin)] * 2 + [(0, 0)], mode=mode)
