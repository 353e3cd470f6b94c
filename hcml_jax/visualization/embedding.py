"""Features in the plane."""

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from hcml_jax.ops.check import check_equal
from hcml_jax.visualization.figure import new_figure

MOST_NAMES = 20  # classes up to which the legend names them
MOST_CLIPS = 2000  # shown; the time that t-SNE takes grows faster than their number


def draw_embedding(features: Mapping[str, np.ndarray], labels: np.ndarray, classes: Sequence[str]) -> Figure:
    """Draws each feature by t-SNE (van der Maaten and Hinton, 2008), coloured by class.

    Args:
      features: name -> `[N, C]`; of more than 2,000 clips every n-th is shown.
      labels: int `[N]`.
      classes: names by label.

    Raises:
      ValueError: the lengths differ.
    """
    from sklearn.manifold import TSNE
    from sklearn.preprocessing import StandardScaler
    from threadpoolctl import threadpool_limits

    shown = slice(None, None, -(-len(labels) // MOST_CLIPS))
    labels = labels[shown]
    palette = matplotlib.colormaps["tab20"]
    figure = new_figure(3.6 * len(features) + 1.8, 3.6)
    for axes, (name, values) in zip(figure.subplots(1, len(features), squeeze=False)[0], features.items(), strict=True):
        check_equal(f"{name}: clips", len(values[shown]), len(labels))
        scaled = StandardScaler().fit_transform(values[shown])
        perplexity = max(min(30.0, (len(labels) - 1) / 3), 1.0)
        with threadpool_limits(1):  # its threads wait for one another by spinning: many times slower on a busy machine
            places = TSNE(init="pca", perplexity=perplexity, random_state=0).fit_transform(scaled)
        axes.scatter(*places.T, c=palette(labels % 20), s=9, linewidths=0)
        axes.set(title=name, xticks=[], yticks=[])
    if len(classes) <= MOST_NAMES:
        dot = {"marker": "o", "linestyle": ""}
        handles = [Line2D([], [], color=palette(i), label=name, **dot) for i, name in enumerate(classes)]
        figure.legend(handles=handles, loc="outside right center", fontsize=7)
    return figure
