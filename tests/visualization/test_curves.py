import pytest
from matplotlib.image import imread

from hcml_jax.visualization import draw_curves, save_figure


def record(stage, step, split="train", **metrics):
    return {"stage": stage, "step": step, "split": split} | metrics


def records():
    early = [record("level0", s, loss=10.0 ** (2 - s), clips_per_second=9.0) for s in range(4)]
    late = [record("level1", s, **{"loss": 1.0 + s, "contrastive/level1/top1": s / 10}) for s in range(4, 6)]
    return [*early, record("level0", 3, "validation", loss=0.5), *late]


def panels(figure):
    return {axes.get_title(): axes for axes in figure.axes if axes.axison}


def test_each_stage_has_a_panel_for_each_group_of_its_metrics():
    assert list(panels(draw_curves(records()))) == ["level0: loss", "level1: loss", "level1: top-1"]


def test_lines_are_the_records():
    axes = panels(draw_curves(records()))["level0: loss"]
    training, validation = axes.lines
    assert list(training.get_xdata()) == [0, 1, 2, 3]
    assert list(training.get_ydata()) == [100, 10, 1, 0.1]
    assert (list(validation.get_xdata()), list(validation.get_ydata())) == ([3], [0.5])
    assert training.get_linestyle() == "-"
    assert validation.get_linestyle() == "--"
    assert training.get_color() == validation.get_color()


def test_only_losses_that_span_decades_are_logarithmic():
    drawn = panels(draw_curves([*records(), record("level1", 6, **{"contrastive/level1/top1": 9.0})]))
    scales = {title: axes.get_yscale() for title, axes in drawn.items()}
    assert scales == {"level0: loss": "log", "level1: loss": "linear", "level1: top-1": "linear"}
    negative = draw_curves([record("level0", s, loss=float(s)) for s in (-1, 100)])
    assert panels(negative)["level0: loss"].get_yscale() == "linear"


@pytest.mark.parametrize(
    ("metric", "panel"),
    [
        ("loss", "loss"),
        ("classification", "loss"),
        ("reconstruction/level0", "loss"),
        ("other/loss", "loss"),
        ("reconstruction/level0/photometric", "loss"),
        ("reconstruction/level0/smoothness", "loss"),
        ("reconstruction/level0/flow_magnitude", "flow (px)"),
        ("reconstruction/level0/valid", "valid share"),
        ("classification/top1", "top-1"),
        ("contrastive/level1/easy_cosine", "cosine"),
        ("contrastive/level1/std", "feature std"),
        ("contrastive/level1/effective_rank", "effective rank"),
    ],
)
def test_metrics_find_their_panel(metric, panel):
    others = {"seconds_left": 5.0, "loss_scale": 1.0, "classification/extra": 1.0}
    terms = ("classification", "reconstruction/level0")
    drawn = panels(draw_curves([record("stage", 0, **{metric: 1.0} | others)], terms))
    assert list(drawn) == [f"stage: {panel}"]
    (line,) = drawn[f"stage: {panel}"].lines
    assert list(line.get_ydata()) == [1.0]


def test_a_term_that_is_not_told_of_is_not_drawn():
    drawn = panels(draw_curves([record("stage", 0, loss=1.0, classification=1.0)]))
    assert len(drawn["stage: loss"].lines) == 1


def test_the_picture_is_written(tmp_path):
    height, width, _ = imread(save_figure(draw_curves(records(), ["loss"]), tmp_path / "curves.png")).shape
    assert height == pytest.approx(550, abs=5)
    assert width == pytest.approx(704, abs=5)


def test_wrong_records_are_refused():
    with pytest.raises(ValueError, match="expected 'split' in each, found"):
        draw_curves([{"stage": "level0", "step": 0, "loss": 1.0}])
    with pytest.raises(ValueError, match="found none"):
        draw_curves([record("level0", 0, clips_per_second=9.0)])
