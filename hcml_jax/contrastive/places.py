"""Which places of two views of a video are the same, and which are foreground (FIMA)."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from hcml_jax.ops.cells import cell_centres, cell_diagonals
from hcml_jax.ops.check import check_equal, checked


def pixel_positives(box_q, flip_q, box_k, flip_k, grid: tuple[int, int], *, threshold: float = 0.7) -> jax.Array:
    """Mask of the pairs of cells of two views' maps that show the same place of the video (FIMA section 3.1).

    Two cells match if their centres are nearer than `threshold` times the diagonal of a cell, taken from the view with
    the larger cells.

    Args:
      box_q, box_k: [B, 4], floating, (top, left, height, width) of what both views show, in pixels of the video.
      flip_q, flip_k: bool [B], whether they are mirrored.
      grid: (H, W) of the maps.
      threshold: above 0.

    Returns:
      bool [B, HW, HW]: [b, i, j] for cell i of view q and cell j of view k, both row by row.

    Raises:
      ValueError: the shapes do not fit, or the threshold is not above 0.
    """
    box_q, box_k = checked("box_q", box_q, "B 4"), checked("box_k", box_k, "B 4")
    check_equal("box_k: the shape of box_q", box_k.shape, box_q.shape)
    if threshold <= 0:
        raise ValueError(f"threshold: expected a number above 0, found {threshold}")
    centres = [cell_centres(*view, grid) for view in ((box_q, flip_q), (box_k, flip_k))]
    of_q, of_k = (x.reshape(x.shape[0], -1, 2) for x in centres)
    distances = jnp.linalg.norm(of_q[:, :, None] - of_k[:, None], axis=-1)
    diagonals = jnp.maximum(cell_diagonals(box_q, grid), cell_diagonals(box_k, grid))
    return distances < threshold * diagonals[:, None, None]


def activation(maps: Sequence[jax.Array]) -> jax.Array:
    """How strong the features of each place are: the maps' means over channels and times, added (FIMA section 3.2).

    Args:
      maps: one or more, each [B, T, H, W, C], floating.

    Returns:
      float32 [B, H, W].

    Raises:
      ValueError: there is no map, or one is of another shape.
    """
    maps = [checked("maps", x, "B T H W C") for x in maps]
    if not maps:
        raise ValueError("maps: expected one or more, found none")
    for x in maps[1:]:
        check_equal("maps: clips and grid of the first", (len(x), *x.shape[2:4]), (len(maps[0]), *maps[0].shape[2:4]))
    return sum(x.astype(jnp.float32).mean((1, 4)) for x in maps)


def foreground(strength, background: float) -> jax.Array:
    """Places whose activation exceeds a quantile of their view's (FIMA eq. 6).

    Args:
      strength: [B, H, W], of `activation`.
      background: beta, the quantile, from 0 up and below 1.

    Returns:
      bool [B, H, W].

    Raises:
      ValueError: `strength` is not a floating [B, H, W] array, or `background` is out of its range.
    """
    strength = checked("strength", strength, "B H W")
    if not 0 <= background < 1:
        raise ValueError(f"background: expected a number from 0 up and below 1, found {background}")
    return strength > jnp.quantile(strength, background, axis=(1, 2), keepdims=True)
