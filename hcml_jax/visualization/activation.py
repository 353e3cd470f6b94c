"""Maps of activation over the frames that they belong to."""

from collections.abc import Mapping, Sequence

import jax.numpy as jnp
import matplotlib
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from hcml_jax.ops.check import check_equal, checked
from hcml_jax.visualization.figure import new_figure, show_image

FRAMES = 4  # of each clip


def draw_activation(clips, maps: Mapping, titles: Sequence[str]) -> Figure:
    """Draws some frames of each clip, and below them each map laid over them, red where it is strongest.

    Args:
      clips: uint8 `[N, T, H, W, 3]`.
      maps: name -> `[N, T', H', W']`, 0 or more, each scaled by its greatest value in the clip.
      titles: a line for each clip.

    Raises:
      ValueError: the shapes do not fit each other.
    """
    clips = np.asarray(checked("clips", clips, "N T H W 3", jnp.uint8))
    maps = {name: np.asarray(checked(name, values, "N T H W")) for name, values in maps.items()}
    for name, values in maps.items():
        check_equal(f"{name}: clips", len(values), len(clips))
    check_equal("titles: one a clip", len(titles), len(clips))
    times = np.linspace(0, clips.shape[1] - 1, min(FRAMES, clips.shape[1])).astype(int)
    rows = ["frames", *maps]
    figure = new_figure(1.6 * len(times) + 0.6, len(clips) * (1.6 * len(rows) + 0.3))
    for number, block in enumerate(np.atleast_1d(figure.subfigures(len(clips), 1))):
        block.suptitle(titles[number], fontsize=9)
        grid = block.subplots(len(rows), len(times), squeeze=False)
        for row, name in zip(grid, rows, strict=True):
            for axes, time in zip(row, times, strict=True):
                frame = clips[number, time]
                shown = frame if name == "frames" else _laid_over(frame, maps[name][number], time / clips.shape[1])
                show_image(axes, shown)
            row[0].set_ylabel(name, fontsize=9)
    return figure


def _laid_over(frame: np.ndarray, values: np.ndarray, share: float) -> np.ndarray:
    """A frame under the map at that share of the clip's time."""
    strength = values[int(share * len(values))] / max(values.max(), 1e-12)
    image = Image.fromarray(strength.astype(np.float32)).resize(frame.shape[1::-1], Image.Resampling.BILINEAR)
    colors = matplotlib.colormaps["jet"](np.asarray(image))[..., :3]
    return np.round(0.55 * frame + 0.45 * 255 * colors).astype(np.uint8)
