import numpy as np
import pytest

from hcml_jax.ops import cell_centres, cell_diagonals


def centre_by_hand(box, flip, grid, row, column):
    """The mean place of a cell's pixels, of a clip that is drawn into the video pixel by pixel."""
    top, left, height, width = box
    column = grid[1] - 1 - column if flip else column
    sub = (np.arange(64) + 0.5) / 64
    return top + height * (row + sub).mean() / grid[0], left + width * (column + sub).mean() / grid[1]


def test_centres_are_those_of_a_loop():
    rng, grid = np.random.default_rng(0), (3, 5)
    box, flip = rng.uniform(1, 90, (2, 4, 4)).astype(np.float32), rng.random((2, 4)) < 0.5
    found = np.asarray(cell_centres(box, flip, grid))
    assert found.shape == (2, 4, 3, 5, 2)
    for view in np.ndindex(2, 4):
        for row, column in np.ndindex(grid):
            expected = centre_by_hand(box[view], flip[view], grid, row, column)
            np.testing.assert_allclose(found[(*view, row, column)], expected, rtol=1e-5)


def test_one_clip_needs_no_axis():
    found = np.asarray(cell_centres([10.0, 20.0, 4.0, 8.0], True, (2, 2)))
    np.testing.assert_allclose(found, [[[11, 26], [11, 22]], [[13, 26], [13, 22]]])


def test_diagonals_are_those_of_a_cell():
    np.testing.assert_allclose(cell_diagonals([[5.0, 5.0, 6.0, 12.0]], (2, 3)), [5.0])


def test_wrong_input_is_named():
    box = np.ones((2, 4), np.float32)
    with pytest.raises(ValueError, match="box: expected shape"):
        cell_centres(box[:, :3], np.zeros(2, bool), (2, 2))
    with pytest.raises(ValueError, match="flip: axes of box"):
        cell_centres(box, np.zeros(3, bool), (2, 2))
    with pytest.raises(ValueError, match="grid: expected a row"):
        cell_centres(box, np.zeros(2, bool), (0, 2))
