"""How similar the features of single times are, as matrices."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from hcml_jax.ops.check import check_equal, checked
from hcml_jax.visualization.figure import new_figure


def draw_similarities(matrices: Mapping[str, np.ndarray], titles: Sequence[str]) -> Figure:
    """Draw a row of matrices for each clip; pairs that should be most similar lie on the diagonal.

    Args:
      matrices: name -> cosines `[N, T, T']`, between each time of one sequence and those of another.
      titles: a line for each clip.

    Raises:
      ValueError: the shapes do not fit each other.
    """
    matrices = {name: np.asarray(checked(name, values, "N T T")) for name, values in matrices.items()}
    for name, values in matrices.items():
        check_equal(f"{name}: clips", len(values), len(titles))
    figure = new_figure(2.3 * len(matrices) + 0.8, 2.2 * len(titles) + 0.3)
    grid = figure.subplots(len(titles), len(matrices), squeeze=False)
    for number, row in enumerate(grid):
        for axes, (name, values) in zip(row, matrices.items(), strict=True):
            shown = axes.imshow(values[number], vmin=-1, vmax=1, cmap="RdBu_r")
            axes.set(xticks=[], yticks=[], title=name if number == 0 else "")
            axes.title.set_fontsize(9)
        row[0].set_ylabel(titles[number], fontsize=8)
    figure.colorbar(shown, ax=grid, shrink=0.6, label="cosine")
    return figure
