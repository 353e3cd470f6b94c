"""Which places of two views of a video are the same, and which are foreground (FIMA)."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from hcml_jax.ops.cells import cell_centres, cell_diagonals


def pixel_positives(box_q, flip_q, box_k, flip_k, grid: tuple[int, int], *, threshold: float = 0.7) -> jax.Array:
    """Which cells of one view's map show the same place of the video as each cell of another's (FIMA section 3.1).

    The same are cells whose centres are nearer than `threshold` times the diagonal of a cell, of the view whose cells
    are the larger ones.

    Args:
      box_q, box_k: [B, 4], floating, (top, left, height, width) of what both views show, in pixels of the video.
      flip_q, flip_k: bool [B], whether they are mirrored.
      grid: (H, W) of the maps.
      threshold: above 0.

    Returns:
      bool [B, HW, HW]: [b, i, j] for cell i of view q and cell j of view k, both row by row.

    Raises:
      ValueError: the shapes do not fit.
    """
    centres = [cell_centres(*view, grid) for view in ((box_q, flip_q), (box_k, flip_k))]
    first, second = (x.reshape(x.shape[0], -1, 2) for x in centres)
    distances = jnp.linalg.norm(first[:, :, None] - second[:, None], axis=-1)
    diagonals = jnp.maximum(cell_diagonals(box_q, grid), cell_diagonals(box_k, grid))
    return distances < threshold * diagonals[:, None, None]


def foreground(maps: Sequence[jax.Array], background: float) -> jax.Array:
    """Places whose activation, the sum of the maps' means over channels and time, exceeds a quantile (FIMA eq. 6).

    Args:
      maps: each [B, T, H, W, C], floating.
      background: beta, the quantile.

    Returns:
      bool [B, HW].
    """
    activation = sum(x.astype(jnp.float32).mean((1, 4)) for x in maps)
    activation = activation.reshape(len(activation), -1)
    return activation > jnp.quantile(activation, background, axis=1, keepdims=True)
