import jax.numpy as jnp
import numpy as np
import pytest

from hcml_jax.ops import frame_difference


def random_clip(shape=(2, 5, 3, 4, 3)):
    return np.random.default_rng(0).random(shape, np.float32)


def by_hand(clip, first):
    """Frame by frame."""
    found = np.empty_like(clip)
    for b, t in np.ndindex(clip.shape[:2]):
        now, before = (t, t - 1) if t else ((1, 0) if first == "repeat" else (0, -1))
        found[b, t] = (clip[b, now] - clip[b, before] + 1) / 2
    return found


@pytest.mark.parametrize("first", ["repeat", "wrap"])
@pytest.mark.parametrize(("dtype", "error"), [("float32", 1e-6), ("bfloat16", 1e-2)])
def test_differences_are_those_of_a_loop(first, dtype, error):
    clip = jnp.asarray(random_clip(), dtype)
    found = frame_difference(clip, first=first)
    assert found.dtype == clip.dtype
    np.testing.assert_allclose(np.float32(found), by_hand(np.float32(clip), first), atol=error)


def test_the_first_frame_repeats_unless_told_otherwise():
    found = frame_difference(random_clip())
    np.testing.assert_array_equal(found[:, 0], found[:, 1])


def test_the_range_is_that_of_images():
    clip = np.zeros((1, 3, 2, 2, 3), np.float32)
    clip[:, 1] = 1.0
    np.testing.assert_array_equal(np.unique(frame_difference(clip)), [0, 1])
    np.testing.assert_array_equal(frame_difference(clip[:, [0, 0]]), 0.5)


def test_where_a_video_begins_again_nothing_changes():
    clip, follows = random_clip(), np.ones((2, 4), bool)
    follows[1, 2] = False
    found, plain = frame_difference(clip, consecutive=follows), frame_difference(clip)
    expected = np.array(plain)
    expected[1, 3] = 0.5
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("clip", "options", "message"),
    [
        (random_clip()[0], {}, "clip: expected shape"),
        (random_clip()[:, :1], {}, "clip: expected two frames or more, found 1"),
        (np.zeros((1, 2, 2, 2, 3), np.uint8), {}, "clip: expected floating numbers"),
        (random_clip(), {"first": "warp"}, "first: expected one of repeat, wrap"),
        (random_clip(), {"consecutive": np.ones((2, 5), bool)}, "consecutive: clips and pairs of frames"),
    ],
)
def test_wrong_input_is_named(clip, options, message):
    with pytest.raises(ValueError, match=message):
        frame_difference(clip, **options)
