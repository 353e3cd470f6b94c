"""Resizing of images, flow and features."""

import jax
import jax.numpy as jnp
import numpy as np

from hcml_jax.ops.check import checked


def resize_area(images, height: int, width: int) -> jax.Array:
    """Resizes by averaging the area each new pixel covers, also for fractional factors.

    `jax.image.resize` has no such method: its "linear" weighs a wider, triangular area.

    Args:
      images: [..., H, W, C], floating.
      height: of the result, in pixels; larger than H repeats pixels.
      width: of the result, in pixels.

    Returns:
      [..., height, width, C], the dtype and value range of `images`; sums are taken in float32.

    Raises:
      ValueError: `images` is not a floating [..., H, W, C] array, or a size is below 1.
    """
    images = checked("images", images, "... H W C")
    averaged = _average(_average(images.astype(jnp.float32), -3, height), -2, width)
    return averaged.astype(images.dtype)


def avg_pool_to(features, time: int, height: int, width: int) -> jax.Array:
    """Averages features in time and space over the cells of another, usually coarser grid.

    HCML brings P^{l-1} to the grid of P^l this way before predicting it. Sizes that do not divide
    are averaged by area, as in `resize_area`.

    Args:
      features: [B, T, H, W, C], floating.
      time: frames of the result.
      height: of the result, in grid positions.
      width: of the result, in grid positions.

    Returns:
      [B, time, height, width, C], the dtype of `features`; sums are taken in float32.

    Raises:
      ValueError: `features` is not a floating [B, T, H, W, C] array, or a size is below 1.
    """
    features = checked("features", features, "B T H W C")
    averaged = resize_area(features.astype(jnp.float32), height, width)
    return _average(averaged, -4, time).astype(features.dtype)


def resize_flow(flow, height: int, width: int) -> jax.Array:
    """Resizes flow bilinearly and scales its values to pixels of the new grid.

    Pixel centres lie at half-integers, as in `jax.image.resize`, which also widens the kernel when
    the grid gets coarser, so that no flow vector is skipped.

    Args:
      flow: [..., H, W, 2], (u right, v down) in pixels of its own grid, floating.
      height: of the result, in pixels.
      width: of the result, in pixels.

    Returns:
      [..., height, width, 2], in pixels of the new grid, the dtype of `flow`.

    Raises:
      ValueError: `flow` is not a floating [..., H, W, 2] array, or a size is below 1.
    """
    flow = checked("flow", flow, "... H W 2")
    _check_size(height)
    _check_size(width)
    resized = jax.image.resize(flow, (*flow.shape[:-3], height, width, 2), "bilinear")
    scale = jnp.asarray((width / flow.shape[-2], height / flow.shape[-3]), flow.dtype)
    return resized * jnp.broadcast_to(scale, resized.shape)


def _average(array, axis, size):
    """Averages one axis over `size` cells of equal length."""
    _check_size(size)
    axis += array.ndim
    before = array.shape[axis]
    if before % size == 0:  # a mean of blocks: 2 to 10 times as fast as the product below
        blocks = array.reshape(*array.shape[:axis], size, before // size, *array.shape[axis + 1 :])
        return jnp.mean(blocks, axis=axis + 1)
    highest = jax.lax.Precision.HIGHEST
    moved = jnp.moveaxis(array, axis, -1)
    averaged = jnp.matmul(moved, _area_weights(before, size), precision=highest)
    return jnp.moveaxis(averaged, -1, axis)


def _area_weights(before, after):
    """float32 [before, after]: the share of each new cell that each old one covers."""
    old, new = np.arange(before)[:, None], np.arange(after) * before / after
    shared = np.minimum(old + 1, new + before / after) - np.maximum(old, new)
    return (np.maximum(shared, 0) * after / before).astype(np.float32)


def _check_size(size):
    if size < 1:
        raise ValueError(f"expected a size of at least 1 to resize to, found {size}")
