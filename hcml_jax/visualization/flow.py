"""Optical flow in Baker's colours, beside the frames it belongs to."""

from collections.abc import Mapping, Sequence

import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from hcml_jax.ops import backward_warp, end_point_error, flow_to_image
from hcml_jax.ops.check import check_equal, checked
from hcml_jax.visualization.figure import new_figure, show_image


def draw_flow(
    frames, flows: Mapping, *, truth=None, titles: Sequence[str] | None = None, time: int | None = None
) -> Figure:
    """Draws a row for each clip: two frames, the true flow, then each named flow.

    Colours are those of `flow_to_image`; full saturation is the longest flow of the row, so that
    the flows of a row compare.

    Args:
      frames: uint8 [N, T, H, W, 3].
      flows: name -> [N, T-1, H, W, 2], (u, v) in pixels of the frames, frame t to t+1.
      truth: [N, T-1, H, W, 2], the ground truth; each flow then shows its end-point error. In any case it shows l1:
        the mean difference between a frame and the next one warped back by it, of values in [-1, 1].
      titles: a name for each clip.
      time: t, the pair of frames to show; None: the middle one.

    Raises:
      ValueError: the shapes do not fit each other, or `time` is not in 0..T-2.
    """
    frames = np.asarray(checked("frames", frames, "N T H W 3", jnp.uint8))
    clips, length, height, width, _ = frames.shape
    columns = ({"ground truth": truth} if truth is not None else {}) | dict(flows)
    columns = {name: np.asarray(checked(name, flow, "N T H W 2")) for name, flow in columns.items()}
    for name, flow in columns.items():
        check_equal(f"{name}: shape", flow.shape, (clips, length - 1, height, width, 2))
    titles = [""] * clips if titles is None else titles
    if len(titles) != clips:
        raise ValueError(f"titles: expected one for each of {clips} clips, found {len(titles)}")
    time = (length - 1) // 2 if time is None else time
    if not 0 <= time < length - 1:
        raise ValueError(f"time: expected 0 to {length - 2} for {length} frames, found {time}")

    figure = new_figure(1.7 * (2 + len(columns)) + 1.7, clips * (1.65 * height / width + 0.45) + 0.25)
    pictures, legend = figure.subfigures(1, 2, width_ratios=[2 + len(columns), 1])
    grid = pictures.subplots(clips, 2 + len(columns), squeeze=False)
    for i, row in enumerate(grid):
        now = {name: flow[i, time] for name, flow in columns.items()}
        _draw_row(row, frames[i, time : time + 2], now, titles[i], headed=i == 0, time=time)
    _draw_wheel(legend.subplots())
    return figure


def _draw_row(axes, frames, flows, title, *, headed, time):
    radius = max((_longest(flow) for flow in flows.values()), default=0.0)
    heads = [f"frame {time}", f"frame {time + 1}", *flows] if headed else [""] * len(axes)
    show_image(axes[0], frames[0], title=heads[0], label=title)
    show_image(axes[1], frames[1], title=heads[1])
    for panel, head, (name, flow) in zip(axes[2:], heads[2:], flows.items(), strict=True):
        note = f"longest {_longest(flow):.1f} px"
        if "ground truth" in flows and name != "ground truth":
            note = f"error {float(end_point_error(flow, flows['ground truth'])):.2f} px"
        note += f"\nl1 {_l1(frames, flow):.3f}"
        show_image(panel, np.asarray(flow_to_image(flow, radius)), title=head, note=note)


def _l1(frames, flow):
    first, second = (frame.astype(np.float32) / 255 for frame in frames)
    return 2 * float(abs(backward_warp(second, flow)[0] - first).mean())


def _longest(flow):
    lengths = np.hypot(flow[..., 0], flow[..., 1])
    return float(np.max(lengths, where=np.isfinite(lengths), initial=0.0))


def _draw_wheel(axes, size=151):
    """Draw the colour wheel: each direction has its colour, no motion is white."""
    axis = np.linspace(-1, 1, size, dtype=np.float32)
    flow = np.stack(np.meshgrid(axis, axis), axis=-1)
    outside = np.linalg.norm(flow, axis=-1, keepdims=True) > 1
    colors = np.where(outside, 1.0, np.asarray(flow_to_image(flow, 1.0)))
    axes.imshow(colors, extent=(-1, 1, 1, -1))
    axes.set_axis_off()
    axes.set_title("direction of motion", fontsize=9)
    axes.text(0, 1.12, "edge: longest of the row", ha="center", va="top", fontsize=8)
