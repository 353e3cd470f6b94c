"""Temporal controls: what they do to frames."""

import numpy as np

from hcml_jax.evaluation.controls import CONTROLS

CLIPS = np.random.default_rng(0).integers(0, 256, (4, 8, 5, 5, 3), dtype=np.uint8)


def apply(name, clips=CLIPS, index=(7, 3, 1, 9)):
    found = np.asarray(CONTROLS[name](clips, np.array(index, np.int32)))
    assert found.dtype == np.uint8
    return found


def test_reversed_clips_run_backwards():
    np.testing.assert_array_equal(apply("reversed"), CLIPS[:, ::-1])


def test_a_single_frame_stands_still():
    np.testing.assert_array_equal(apply("single_frame"), np.repeat(CLIPS[:, 4:5], 8, axis=1))


def test_shuffled_clips_have_the_same_frames_in_an_order_of_their_row():
    found = apply("shuffled")
    order = [[CLIPS[b, :, 0, 0, 0].tolist().index(value) for value in found[b, :, 0, 0, 0]] for b in range(4)]
    for b in range(4):
        np.testing.assert_array_equal(found[b], CLIPS[b, order[b]])
        assert sorted(order[b]) == list(range(8)) != order[b]
    assert len({tuple(o) for o in order}) == 4
    again = apply("shuffled", CLIPS[[2, 0]], (1, 7))
    np.testing.assert_array_equal(again, found[[2, 0]])
