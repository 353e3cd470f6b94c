import numpy as np
import pytest

from hcml_jax.visualization.prediction import moving_prediction, predicted_rows


def test_errors_are_of_the_frame_that_is_made():
    frames = np.zeros((2, 3, 4, 5, 3), np.uint8)
    frames[:, 1], frames[:, 2] = 51, 102
    predicted = np.full((2, 2, 4, 5, 3), 0.3, np.float32)
    predicted[1] = 1.2
    rows = predicted_rows(frames, predicted, np.ones((2, 2), bool))
    found = {name: images[:, :, 0, 0, 0].tolist() for name, images in rows.items()}
    assert found == {
        "frame before": [[0, 51]] * 2,
        "true": [[51, 102]] * 2,
        "predicted": [[76, 76], [255, 255]],  # 76.5, to even
        "error": [[102, 102], [255, 255]],
        "error of copying": [[204, 204]] * 2,
    }
    moving = moving_prediction(rows, ["jump", "run"])
    assert [[title for _, title, _ in row] for row in moving] == [[t, *[*rows][1:]] for t in ("jump", "run")]
    np.testing.assert_array_equal(moving[1][2][0], rows["predicted"][1])


def test_where_a_video_begins_again_nothing_is_shown():
    frames, predicted = np.full((1, 4, 4, 5, 3), 255, np.uint8), np.ones((1, 3, 4, 5, 3), np.float32)
    rows = predicted_rows(frames, predicted, np.array([[True, False, True]]))
    for name in ("frame before", "true", "predicted"):
        assert rows[name][0, :, 0, 0, 0].tolist() == [255, 0, 255]


def test_frames_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="predicted: one frame less than frames"):
        predicted_rows(np.zeros((1, 3, 4, 4, 3), np.uint8), np.zeros((1, 3, 4, 4, 3), np.float32), np.ones((1, 3)))
