"""Confusion matrices."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from hcml_jax.ops.check import check_equal
from hcml_jax.visualization.figure import new_figure

MOST_NUMBERS = 30  # classes up to which each cell shows its number
MOST_NAMES = 110  # classes up to which each row shows its name


def draw_confusion(matrix, classes: Sequence[str], families: Mapping | None = None) -> Figure:
    """Draws which share of each true class is taken for which class.

    Args:
      matrix: [C, C] counts, row = true class, column = prediction. Rows are divided by their sum;
        one without clips stays 0.
      classes: C names.
      families: class -> family; families are brought together and parted by lines.

    Raises:
      ValueError: `matrix` is not [C, C], has negative entries, or a class has no family.
    """
    matrix = np.asarray(matrix, float)
    check_equal("matrix: [C, C] of classes", matrix.shape, (len(classes),) * 2)
    if (matrix < 0).any():
        raise ValueError(f"matrix: expected counts, found {matrix.min()}")
    groups = _groups(classes, families)
    order = [i for members in groups.values() for i in members]
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1e-12)
    shares = shares[np.ix_(order, order)]

    side = float(np.clip(0.42 * len(classes), 2.5, 16))
    figure = new_figure(side + 2.6, side + 1.8)
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, ax=axes, label="share of the true class", shrink=0.6)
    axes.set(xlabel="predicted", ylabel="true", title=f"mean over classes: {_recall(shares):.1%}")
    _name_cells(axes, [classes[i] for i in order])
    if len(classes) <= MOST_NUMBERS:
        _number_cells(axes, shares)
    if families is not None:
        _part_families(axes, groups)
    return figure


def _recall(shares):
    """Mean share on the diagonal over the classes that have clips."""
    present = shares.sum(axis=1) > 0
    return np.diag(shares)[present].mean() if present.any() else 0.0


def _groups(classes, families):
    """Family -> class indices, families in the order in which they first appear; None: all are of one."""
    if families is None:
        return {"": range(len(classes))}
    unknown = [name for name in classes if name not in families]
    if unknown:
        raise ValueError(f"families: expected one for each class, found none for {unknown}")
    groups = {}
    for i, name in enumerate(classes):
        groups.setdefault(families[name], []).append(i)
    return groups


def _name_cells(axes, names):
    shown = range(len(names)) if len(names) <= MOST_NAMES else ()
    axes.set_xticks(shown, [names[i] for i in shown], rotation=60, ha="right", rotation_mode="anchor")
    axes.set_yticks(shown, [names[i] for i in shown])
    axes.tick_params(labelsize=9 if len(names) <= MOST_NUMBERS else 5)


def _number_cells(axes, shares):
    for y, x in zip(*np.nonzero(shares >= 0.005), strict=True):
        color = "white" if shares[y, x] > 0.5 else "black"
        text = f"{100 * shares[y, x]:.0f}"
        axes.text(x, y, text, ha="center", va="center", color=color, fontsize=8)


def _part_families(axes, groups):
    end = -0.5
    for family, members in groups.items():
        start, end = end, end + len(members)
        middle = (start + end) / 2
        side = axes.get_yaxis_transform()
        axes.text(1.02, middle, family, transform=side, rotation=270, ha="left", va="center")
        if family != list(groups)[-1]:
            axes.axhline(end, color="black", linewidth=1)
            axes.axvline(end, color="black", linewidth=1)
