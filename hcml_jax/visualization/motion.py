"""How much the motion of videos changes over time."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from hcml_jax.visualization.figure import new_figure


def draw_motion(videos: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> Figure:
    """Draws a curve for each video, and marks where it lies above its median (MSCL 3.4).

    Args:
      videos: name -> (frames `[N]`, how much the motion changes there `[N]`; NaN where it is not known).
    """
    figure = new_figure(7.5, 1.5 * len(videos) + 0.5)
    grid = figure.subplots(len(videos), 1, squeeze=False)[:, 0]
    for axes, (name, (frames, motion)) in zip(grid, videos.items(), strict=True):
        known = ~np.isnan(motion)
        axes.plot(frames, motion, color="tab:blue", linewidth=1)
        if known.any():
            median = np.median(motion[known])
            axes.axhline(median, color="gray", linestyle="--", linewidth=0.8)
            above = known & (np.where(known, motion, -np.inf) > median)
            axes.scatter(frames[above], motion[above], color="tab:orange", s=12, zorder=3)
        axes.set_title(name, fontsize=9)
        axes.set_ylabel("change", fontsize=8)
        axes.tick_params(labelsize=8)
    grid[-1].set_xlabel("frame; orange: above the video's median", fontsize=9)
    return figure
