import numpy as np
import pytest
from matplotlib.image import imread

from hcml_jax.ops import flow_to_image
from hcml_jax.visualization import draw_flow, save_figure

N, T, H, W = 2, 4, 6, 8


def frames():
    return np.random.default_rng(0).integers(0, 256, (N, T, H, W, 3), np.uint8)


def flow(seed):
    return np.random.default_rng(seed).normal(size=(N, T - 1, H, W, 2)).astype(np.float32)


def panels(figure):
    """The axes of the pictures, row by row, without the wheel."""
    return np.array(figure.subfigs[0].axes).reshape(N, -1)


def test_rows_hold_frames_truth_and_flows_in_common_colours():
    truth, level0, level1 = flow(0), flow(1), 3 * flow(2)
    figure = draw_flow(frames(), {"level0": level0, "level1": level1}, truth=truth, time=2)
    grid = panels(figure)
    titles = [axes.get_title() for axes in grid[0]]
    assert titles == ["frame 2", "frame 3", "ground truth", "level0", "level1"]
    for i, row in enumerate(grid):
        shown = [axes.images[0].get_array() for axes in row]
        np.testing.assert_array_equal(shown[0], frames()[i, 2])
        np.testing.assert_array_equal(shown[1], frames()[i, 3])
        radius = np.linalg.norm([f[i, 2] for f in (truth, level0, level1)], axis=-1).max()
        for image, expected in zip(shown[2:], (truth, level0, level1), strict=True):
            np.testing.assert_allclose(image, flow_to_image(expected[i, 2], radius), atol=1e-5)


def test_the_error_of_each_flow_is_shown_where_there_is_truth():
    truth = np.zeros((N, T - 1, H, W, 2), np.float32)
    figure = draw_flow(frames(), {"level0": truth + np.float32([3, 4])}, truth=truth)
    notes = [axes.get_xlabel().split("\n") for axes in panels(figure)[0]][2:]
    assert [note[0] for note in notes] == ["longest 0.0 px", "error 5.00 px"]
    difference = 2 * abs(frames()[0, 2] / 255 - frames()[0, 1] / 255).mean()  # zero flow warps nothing
    assert notes[0][1] == f"l1 {difference:.3f}"
    without = draw_flow(frames(), {"level0": truth + np.float32([3, 4])})
    assert panels(without)[0, 2].get_xlabel().startswith("longest 5.0 px\n")


def test_the_picture_is_written(tmp_path):
    path = save_figure(draw_flow(frames(), {"level0": flow(0)}, titles=["one", "two"]), tmp_path / "flow.png")
    height, width, _ = imread(path).shape
    assert 200 < height < 1000
    assert 400 < width < 1500


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"frames": frames().astype(np.float32)}, "frames: expected uint8 numbers, found float32"),
        ({"frames": frames()[:, :-1]}, r"level0: shape: expected \(2, 2, 6, 8, 2\), found"),
        ({"truth": flow(0)[:, :, :3]}, "ground truth: shape"),
        ({"titles": ["one"]}, "titles: expected one for each of 2 clips, found 1"),
        ({"time": T - 1}, "time: expected 0 to 2 for 4 frames, found 3"),
    ],
)
def test_what_does_not_fit_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        draw_flow(**({"frames": frames(), "flows": {"level0": flow(0)}} | change))
