"""Where the cells of a feature map lie in the video that its clip was cut out of."""

import jax
import jax.numpy as jnp

from hcml_jax.ops.check import check_equal, checked


def cell_centres(box, flip, grid: tuple[int, int]) -> jax.Array:
    """The centres of the cells of a map, in pixels of the video.

    Args:
      box: [..., 4], floating, (top, left, height, width) of what the clip shows, in pixels of the video.
      flip: bool [...], whether the clip is mirrored left to right.
      grid: (H, W) of the map, which covers the clip evenly.

    Returns:
      float32 [..., H, W, 2], (y, x).

    Raises:
      ValueError: the shapes do not fit, or the grid is empty.
    """
    box = checked("box", box, "... 4").astype(jnp.float32)
    check_equal("flip: axes of box before the last", jnp.shape(flip), box.shape[:-1])
    if min(grid) < 1:
        raise ValueError(f"grid: expected a row and a column or more, found {grid}")
    down, across = ((jnp.arange(n, dtype=jnp.float32) + 0.5) / n for n in grid)
    top, left, height, width = (side[..., None] for side in jnp.moveaxis(box, -1, 0))
    across = jnp.where(jnp.asarray(flip)[..., None], 1 - across, across)
    y, x = top + height * down, left + width * across
    return jnp.stack(jnp.broadcast_arrays(y[..., :, None], x[..., None, :]), axis=-1)


def cell_diagonals(box, grid: tuple[int, int]) -> jax.Array:
    """The diagonals of the cells of maps, in pixels of the video: `cell_centres`'s arguments; float32 [...]."""
    sides = checked("box", box, "... 4").astype(jnp.float32)[..., 2:] / jnp.asarray(grid, jnp.float32)
    return jnp.linalg.norm(sides, axis=-1)
