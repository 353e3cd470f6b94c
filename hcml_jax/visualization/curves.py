"""Training curves from the records of a run."""

from collections.abc import Collection, Iterable, Mapping

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from hcml_jax.visualization.figure import new_figure

# Panel -> the last parts of the names of its metrics. What no panel asks for (clips per second,
# norms of gradients) is not drawn.
PANELS = {
    "loss": ("loss", "photometric", "smoothness", "copying", "without_motion"),
    "top-1": ("top1",),
    "right time": ("right_time", "right_time_chance"),
    "cosine": ("positive_cosine", "spatial_cosine", "temporal_cosine", "easy_cosine"),
    "feature std": ("std",),
    "effective rank": ("effective_rank",),
    "PSNR (dB)": ("psnr", "psnr_of_copying"),
    "flow (px)": ("flow_magnitude",),
    "valid share": ("valid",),
}
PANEL_OF = {metric: panel for panel, metrics in PANELS.items() for metric in metrics}
TRAINING = {"linewidth": 1.2}
VALIDATION = {"linestyle": "--", "marker": "o", "markersize": 3}


def draw_curves(records: Iterable[Mapping], terms: Collection[str] = ()) -> Figure:
    """Draws a row for each stage with a panel for each group of metrics, over steps.

    Training is a solid line, validation dashed with dots. Losses have a logarithmic axis
    where all of them are above 0 and span more than a factor of 10.

    Args:
      records: as in metrics.jsonl: {"stage", "step", "split", metric: number}; the split "train"
        is training, every other validation. Stages keep the order in which they appear.
      terms: the metrics that are terms of a loss, such as "classification"; drawn beside it.

    Raises:
      ValueError: a record lacks "stage", "step" or "split", or no record holds a known metric.
    """
    series = _series(records, terms)
    if not series:
        raise ValueError(f"records: expected metrics named after {list(PANELS)}, found none")
    stages = list(dict.fromkeys(stage for stage, _ in series))
    panels = {stage: [p for p in PANELS if (stage, p) in series] for stage in stages}
    most = max(len(chosen) for chosen in panels.values())
    figure = new_figure(3.2 * most, 2.5 * len(stages))
    grid = figure.subplots(len(stages), most, squeeze=False)
    for axes in grid.ravel():
        axes.set_axis_off()
    figure.suptitle("solid: training, dashed: validation", fontsize=9)
    for stage, row in zip(stages, grid, strict=True):
        for panel, axes in zip(panels[stage], row, strict=False):
            _draw_panel(axes, stage, panel, series[stage, panel])
    return figure


def _series(records, terms):
    """{(stage, panel): {(metric, split): [(step, value), ...]}}, in the order of appearance."""
    series = {}
    for record in records:
        missing = [name for name in ("stage", "step", "split") if name not in record]
        if missing:
            raise ValueError(f"records: expected {missing[0]!r} in each, found {dict(record)}")
        for metric, value in record.items():
            panel = "loss" if metric in terms else PANEL_OF.get(metric.rsplit("/", 1)[-1])
            if panel and isinstance(value, int | float):
                lines = series.setdefault((record["stage"], panel), {})
                lines.setdefault((metric, record["split"]), []).append((record["step"], value))
    return series


def _draw_panel(axes, stage, panel, lines):
    axes.set_axis_on()
    axes.set_title(f"{stage}: {panel}", fontsize=10)
    colors = {metric: f"C{i}" for i, metric in enumerate(dict.fromkeys(m for m, _ in lines))}
    for (metric, split), points in lines.items():
        style = TRAINING if split == "train" else VALIDATION
        axes.plot(*zip(*points, strict=True), color=colors[metric], **style)
    values = [value for points in lines.values() for _, value in points]
    if panel == "loss" and 0 < 10 * min(values) < max(values):
        axes.set_yscale("log")
    axes.set_xlabel("step", fontsize=8)
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.3)
    handles = [Line2D([], [], color=color, label=_short(m)) for m, color in colors.items()]
    axes.legend(handles=handles, fontsize=7, framealpha=0.6)


def _short(metric):
    """ "contrastive/level1/top1" as "level1/top1": the panel's title says the rest."""
    return metric.split("/", 1)[1] if metric.count("/") == 2 else metric
