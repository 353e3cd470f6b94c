"""Query clips with the clips that each level's features retrieve."""

from collections.abc import Mapping, Sequence

import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from hcml_jax.ops.check import check_equal, checked
from hcml_jax.visualization.figure import new_figure, show_image

RIGHT, WRONG = "tab:green", "tab:red"


def draw_retrieval(
    queries, retrieved: Mapping, *, query_labels, retrieved_labels: Mapping, classes: Sequence[str]
) -> Figure:
    """Draws, for each query and level, the query and the clips retrieved for it.

    Each clip is its first, middle and last frame side by side; the border is green where the class
    is the query's and red where it is not.

    Args:
      queries: uint8 [Q, T, H, W, 3].
      retrieved: level -> uint8 [Q, K, T, H, W, 3], nearest first.
      query_labels: integers [Q].
      retrieved_labels: level -> integers [Q, K].
      classes: names by label.

    Raises:
      ValueError: the shapes or the levels do not fit each other, or a label has no name.
    """
    queries = np.asarray(checked("queries", queries, "Q T H W 3", jnp.uint8))
    query_labels = _labels("query_labels", query_labels, queries.shape[:1], classes)
    check_equal("retrieved_labels: levels", set(retrieved_labels), set(retrieved))
    clips, labels = {}, {}
    for level, found in retrieved.items():
        clips[level] = np.asarray(checked(level, found, "Q K T H W 3", jnp.uint8))
        count = clips[level].shape[1]
        check_equal(f"{level}: shape", clips[level].shape, (len(queries), count, *queries.shape[1:]))
        labels[level] = _labels(level, retrieved_labels[level], (len(queries), count), classes)

    most = max(found.shape[1] for found in clips.values())
    aspect = queries.shape[2] / queries.shape[3] / 3
    figure = new_figure(2.1 * (1 + most), len(queries) * len(clips) * (2.0 * aspect + 0.27))
    for q, block in enumerate(np.atleast_1d(figure.subfigures(len(queries), 1, hspace=0.03))):
        grid = block.subplots(len(clips), 1 + most, squeeze=False)
        for axes in grid.ravel():
            axes.set_axis_off()
        name = classes[query_labels[q]]
        _draw_clip(grid[0, 0], queries[q], f"query: {name}", "black")
        for row, level in zip(grid[:, 1:], clips, strict=True):
            for axes, clip, label in zip(row, clips[level][q], labels[level][q], strict=False):
                color = RIGHT if label == query_labels[q] else WRONG
                _draw_clip(axes, clip, classes[label], color)
            row[0].set_ylabel(level, fontsize=10)
    return figure


def moving_retrieval(
    queries, retrieved: Mapping, *, query_labels, retrieved_labels: Mapping, classes: Sequence[str]
) -> list[list[tuple]]:
    """The same as rows for `save_moving`: a query, then what each level retrieves for it."""
    rows = []
    for q, label in enumerate(query_labels):
        for level, clips in retrieved.items():
            row = [(queries[q], f"{level}: {classes[label]}", "black")]
            for clip, found in zip(clips[q], retrieved_labels[level][q], strict=True):
                row.append((clip, classes[found], "green" if found == label else "red"))
            rows.append(row)
    return rows


def _labels(name, labels, shape, classes):
    labels = np.asarray(labels)
    check_equal(f"{name}: shape of the labels", labels.shape, shape)
    if labels.size and not 0 <= labels.min() <= labels.max() < len(classes):
        raise ValueError(f"{name}: expected labels 0 to {len(classes) - 1}, found {labels.min()} to {labels.max()}")
    return labels


def _draw_clip(axes, clip, title, color):
    frames = clip[[0, len(clip) // 2, len(clip) - 1]]
    parted = np.pad(frames, [(0, 0), (0, 0), (0, 1), (0, 0)], constant_values=255)
    axes.set_axis_on()
    show_image(axes, np.concatenate(parted, axis=1)[:, :-1])
    axes.set_title(title, fontsize=8, color=color, pad=3)
    axes.spines[:].set(color=color, linewidth=2.5)
