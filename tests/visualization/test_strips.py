import numpy as np
import pytest

from hcml_jax.visualization import draw_similarities, draw_strips
from hcml_jax.visualization.activation import lay_over

RNG = np.random.default_rng(0)


def test_some_times_of_each_clip_stand_side_by_side():
    frames = RNG.integers(0, 256, (2, 8, 4, 5, 3), dtype=np.uint8)
    flow = RNG.uniform(size=(2, 8, 4, 5, 3)).astype(np.float32)
    figure = draw_strips({"frames": frames, "flow": flow}, ["left", "up"])
    first, second = figure.subfigs
    assert [block._suptitle.get_text() for block in (first, second)] == ["left", "up"]
    shown = [axes.images[0].get_array() for axes in second.axes]
    for place, time in enumerate((0, 2, 4, 7)):
        np.testing.assert_array_equal(shown[place], frames[1, time])
        np.testing.assert_array_equal(shown[4 + place], flow[1, time])
    assert [axes.get_ylabel() for axes in second.axes[::4]] == ["frames", "flow"]
    with pytest.raises(ValueError, match="flow: clips and times"):
        draw_strips({"frames": frames, "flow": flow[:, 1:]}, ["left", "up"])


def test_activation_lies_over_the_frames_of_its_times():
    frames = np.full((1, 6, 8, 8, 3), 100, np.uint8)
    maps = np.zeros((1, 3, 4, 4), np.float32)
    maps[0, 1, :2] = 2.0  # frames 2 and 3
    laid = lay_over(frames, maps)
    assert laid.shape == frames.shape and laid.dtype == np.uint8
    red_over_blue = laid[0, :, 0, 0, 0].astype(int) - laid[0, :, 0, 0, 2]
    assert (red_over_blue[2:4] > 30).all() and (red_over_blue[[0, 1, 4, 5]] < -30).all()
    with pytest.raises(ValueError, match="maps: clips"):
        lay_over(frames, maps.repeat(2, 0))


def test_similarities_are_rows_of_matrices():
    matrices = {"flow": RNG.uniform(-1, 1, (2, 4, 4)), "turned": RNG.uniform(-1, 1, (2, 4, 4))}
    axes = draw_similarities(matrices, ["left", "up"]).axes
    np.testing.assert_allclose(axes[3].images[0].get_array(), matrices["turned"][1], rtol=1e-6)
    assert [one.get_title() for one in axes[:2]] == ["flow", "turned"]
    assert axes[0].images[0].get_clim() == (-1, 1)
    with pytest.raises(ValueError, match="turned: clips"):
        draw_similarities(matrices | {"turned": matrices["turned"][:1]}, ["left", "up"])
