"""Strips of frames: some times of each clip side by side, related images below."""

from collections.abc import Mapping, Sequence

import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from hcml_jax.ops.check import check_equal, checked
from hcml_jax.visualization.figure import new_figure, show_image

TIMES = 4  # of each clip


def draw_strips(rows: Mapping[str, np.ndarray], titles: Sequence[str]) -> Figure:
    """Draws a block for each clip: a row for each name, a column for each of some times.

    Args:
      rows: name -> images `[N, T, H, W, 3]`, uint8 or float in [0, 1], of the same clips and times.
      titles: a line for each clip.

    Raises:
      ValueError: the shapes do not fit each other.
    """
    rows = {name: np.asarray(checked(name, images, "N T H W 3", jnp.number)) for name, images in rows.items()}
    clips, length = next(iter(rows.values())).shape[:2]
    for name, images in rows.items():
        check_equal(f"{name}: clips and times", images.shape[:2], (clips, length))
    check_equal("titles: one a clip", len(titles), clips)
    times = np.linspace(0, length - 1, min(TIMES, length)).astype(int)
    figure = new_figure(1.6 * len(times) + 0.6, clips * (1.6 * len(rows) + 0.3))
    for number, block in enumerate(np.atleast_1d(figure.subfigures(clips, 1))):
        block.suptitle(titles[number], fontsize=9)
        grid = block.subplots(len(rows), len(times), squeeze=False)
        for row, (name, images) in zip(grid, rows.items(), strict=True):
            for axes, time in zip(row, times, strict=True):
                show_image(axes, images[number, time])
            row[0].set_ylabel(name, fontsize=9)
    return figure
