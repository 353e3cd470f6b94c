"""Order and views as pure functions of (seed, epoch, row)."""

import numpy as np
import pytest

from data_pipelines.config import DataConfig
from data_pipelines.sampling import draw_view, epoch_order, resized, view_generator


def make_config(**values):
    return DataConfig(**{"root": "a", "short_side": (64, 80), "crop": 56, **values})


def test_an_epoch_is_a_permutation_of_its_own():
    first = epoch_order(50, 1, 0)
    assert sorted(first) == list(range(50))
    for other in (epoch_order(50, 1, 1), epoch_order(50, 2, 0)):
        assert (first != other).mean() > 0.8
    epoch_order.cache_clear()
    np.testing.assert_array_equal(first, epoch_order(50, 1, 0))


def test_generators_differ_by_seed_epoch_and_row():
    draws = {view_generator(*key).random() for key in [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)]}
    assert len(draws) == 4
    assert view_generator(3, 2, 1).random() == view_generator(3, 2, 1).random()


def test_without_a_generator_the_view_is_the_middle():
    view = draw_view(make_config(frames=3, stride=4), (10, 31), (128, 256))
    assert view.indices.tolist() == [16, 20, 24]  # 9 of 21 frames, 6 before and 6 behind
    assert view.size == (64, 128) and view.corner == (4, 36)


def test_random_views_fill_their_range():
    config = make_config(frames=3, stride=2)
    views = [draw_view(config, (10, 20), (100, 50), view_generator(0, 0, i)) for i in range(600)]
    assert {view.indices[0] for view in views} == {10, 11, 12, 13, 14, 15}
    assert all(np.diff(view.indices).tolist() == [2, 2] for view in views)
    assert {view.size for view in views} == {(2 * side, side) for side in range(64, 81)}
    smallest = [view for view in views if view.size[1] == 64]
    assert {view.corner[1] for view in smallest} <= set(range(9))
    for view in views:
        assert 0 <= view.corner[0] <= view.size[0] - 56 and 0 <= view.corner[1] <= view.size[1] - 56
    assert {view.corner[1] == view.size[1] - 56 for view in views} == {True, False}


def test_a_short_video_begins_again():
    view = draw_view(make_config(frames=5, stride=2), (3, 7), (64, 64))
    assert view.indices.tolist() == [3, 5, 3, 5, 3]


@pytest.mark.parametrize(
    ("size", "side", "expected"),
    [((240, 320), 120, (120, 160)), ((320, 240), 256, (341, 256)), ((48, 48), 48, (48, 48))],
)
def test_resizing_keeps_the_ratio(size, side, expected):
    assert resized(size, side) == expected
