"""Order and views as pure functions of (seed, stage, epoch, row)."""

import numpy as np
import pytest
from scipy.stats import kstest

from data_pipelines.config import DataConfig
from data_pipelines.sampling import draw_views, epoch_order, mixed_place, view_generator
from hcml_jax.batch import Reads


def make_config(**values):
    return DataConfig(**{"root": "a", "short_side": (64, 80), "crop": 56, **values})


def draw(config, segment, frame_size, reads, row=0):
    return draw_views(config, reads, segment, frame_size, view_generator(0, "s", 0, row))


def test_an_epoch_is_a_permutation_of_its_own():
    first = epoch_order(50, 1, "s", 0)
    assert sorted(first) == list(range(50))
    for other in ((50, 1, "s", 1), (50, 2, "s", 0), (50, 1, "t", 0)):
        assert (first != epoch_order(*other)).mean() > 0.8
    epoch_order.cache_clear()
    np.testing.assert_array_equal(first, epoch_order(50, 1, "s", 0))


def test_generators_differ_by_seed_stage_epoch_and_row():
    keys = [(0, "s", 0, 0), (1, "s", 0, 0), (0, "t", 0, 0), (0, "s", 1, 0), (0, "s", 0, 1)]
    assert len({view_generator(*key).random() for key in keys}) == 5
    assert view_generator(3, "s", 2, 1).random() == view_generator(3, "s", 2, 1).random()


def test_without_a_generator_the_view_is_the_middle():
    (view,) = draw_views(make_config(frames=3, stride=4), Reads(), (10, 31), (128, 256))
    assert view.indices.tolist() == [16, 20, 24]  # 9 of 21 frames, 6 before and 6 behind
    assert view.box == (8, 72, 112, 112) and view.side == 56


def test_without_a_generator_several_clips_are_spread_over_the_room():
    reads = Reads(clips=4, area=(0.1, 0.5), future=1)
    views = draw_views(make_config(frames=3, stride=2), reads, (10, 33), (128, 256))
    assert [view.indices[0] for view in views] == [12, 16, 20, 24]  # the middles of 4 x 4 of 16
    assert {view.box for view in views} == {(8, 72, 112, 112)}


@pytest.mark.parametrize("fields", [{"area": (0.01, 1.0)}, {"area": (0.5, 1.1)}, {"clips": 0}, {"aspect": (2, 1)}])
def test_views_out_of_range_are_refused(fields):
    with pytest.raises(ValueError, match="must be"):
        Reads(**fields)


def test_random_views_fill_their_range():
    config = make_config(frames=3, stride=2)
    views = [draw(config, (10, 20), (100, 50), Reads(), i)[0] for i in range(600)]
    assert {view.indices[0] for view in views} == {10, 11, 12, 13, 14, 15}
    assert all(np.diff(view.indices).tolist() == [2, 2] for view in views)
    sides = {round(50 * 56 / short_side) for short_side in range(64, 81)}
    assert {view.box[2:] for view in views} == {(side, side) for side in sides}
    margins = np.array([(100 - height - top, 50 - width - left) for top, left, height, width in (v.box for v in views)])
    corners = np.array([view.box[:2] for view in views])
    for distances in (margins, corners):
        assert distances.min(0).tolist() == [0, 0] and (distances.max(0) > (50, 10)).all()


def test_the_clips_of_a_video_are_drawn_independently():
    drawn = [draw(make_config(frames=3), (0, 100), (100, 200), Reads(3), i) for i in range(300)]
    starts = np.array([[view.indices[0] for view in views] for views in drawn])
    lefts = np.array([[view.box[1] for view in views] for views in drawn])
    for values in (starts, lefts):
        assert np.abs(np.corrcoef(values.T) - np.eye(3)).max() < 0.2
        assert (values.min(0) < 5).all() and (values.max(0) > 80).all()


def test_clips_start_near_the_first_if_told_so():
    reads = Reads(clips=3, max_offset=4)
    drawn = [draw(make_config(frames=3), (5, 25), (64, 64), reads, i) for i in range(400)]
    starts = np.array([[view.indices[0] for view in views] for views in drawn])
    assert set(starts.flat) == set(range(5, 21))
    assert set((starts[:, 1:] - starts[:, :1]).flat) == set(range(-4, 5))
    together = draw(make_config(), (0, 90), (64, 64), Reads(clips=9, max_offset=0))
    assert len({view.indices[0] for view in together}) == 1


@pytest.mark.parametrize("most", [None, 6])
def test_clips_start_apart_if_told_so(most):
    reads = Reads(clips=3, min_offset=3, max_offset=most)
    drawn = [draw(make_config(frames=3), (5, 25), (64, 64), reads, i) for i in range(400)]
    starts = np.array([[view.indices[0] for view in views] for views in drawn])
    offsets = {*map(int, (starts[:, 1:] - starts[:, :1]).flat)}
    assert set(starts.flat) == set(range(5, 21))
    assert offsets == {o for o in range(-15, 16) if 3 <= abs(o) <= (most or 15)}


def test_where_there_is_no_room_clips_start_as_far_apart_as_there_is():
    reads = Reads(clips=2, min_offset=4)
    drawn = [draw(make_config(frames=3), (0, 7), (64, 64), reads, i) for i in range(100)]
    starts = {tuple(int(view.indices[0]) for view in views) for views in drawn}
    assert starts == {(0, 2), (1, 0), (1, 2), (2, 0)}
    assert [view.indices[0] for view in draw(make_config(frames=3), (0, 5), (64, 64), reads)] == [0, 0]


def test_offsets_that_contradict_are_refused():
    for fields in ({"min_offset": -1}, {"min_offset": 3, "max_offset": 2}):
        with pytest.raises(ValueError, match="min_offset must be 0 or more, and at most max_offset"):
            Reads(clips=2, **fields)


def test_a_random_share_is_uniform_in_area_and_in_the_logarithm_of_its_aspect():
    reads = Reads(clips=2000, area=(0.1, 0.3), aspect=(0.5, 1.5))
    views = draw(make_config(), (0, 50), (600, 600), reads)
    boxes = np.array([view.box for view in views])
    area, aspect = boxes[:, 2] * boxes[:, 3] / 600**2, boxes[:, 3] / boxes[:, 2]
    assert kstest((area - 0.1) / 0.2, "uniform").pvalue > 0.01
    assert kstest(np.log(aspect / 0.5) / np.log(3), "uniform").pvalue > 0.01
    for axis in (0, 1):
        room = 600 - boxes[:, 2 + axis]
        assert kstest(boxes[:, axis] / room, "uniform").pvalue > 0.01


@pytest.mark.parametrize(
    ("frame_size", "box"),
    [((100, 400), (0, 100, 100, 200)), ((400, 100), (100, 0, 200, 100)), ((90, 100), (0, 0, 90, 100))],
)
def test_where_no_share_fits_the_largest_in_the_middle_is_shown(frame_size, box):
    reads = Reads(clips=20, area=(1.0, 1.0), aspect=(0.5, 2.0))
    for view in draw(make_config(crop=60), (0, 50), frame_size, reads):
        np.testing.assert_allclose(view.box, box, atol=2)


def test_frames_behind_a_clip_are_at_its_stride_and_count_for_the_room():
    config, reads = make_config(frames=3, stride=2), Reads(future=2)
    views = [draw(config, (10, 20), (64, 64), reads, i)[0] for i in range(50)]
    assert {tuple(view.indices) for view in views} == {(10, 12, 14, 16, 18), (11, 13, 15, 17, 19)}
    assert all(view.consecutive.tolist() == [True] * 4 for view in views)


def test_a_short_video_begins_again():
    (view,) = draw_views(make_config(frames=5, stride=2), Reads(future=1), (3, 8), (64, 64))
    assert view.indices.tolist() == [3, 5, 7, 4, 6, 3]
    assert view.consecutive.tolist() == [True, True, False, True, False]


@pytest.mark.parametrize("shares", [(0.75, 0.25), (0.5, 0.334, 0.166), (1.0,)])
def test_a_mixture_holds_its_shares_and_numbers_each_source_through(shares):
    places = [mixed_place(number, shares, 0, "s") for number in range(3000)]
    for source, share in enumerate(shares):
        ranks = [rank for found, rank in places if found == source]
        assert ranks == list(range(len(ranks))) and len(ranks) == pytest.approx(3000 * share, abs=3)
    if len(shares) > 1:
        first, second = ([source for source, _ in places[start : start + 1000]] for start in (0, 1000))
        assert first != second and first != [mixed_place(n, shares, 1, "s")[0] for n in range(1000)]
        runs = 1 + np.count_nonzero(np.diff(first))
        assert runs > 300  # in no order
