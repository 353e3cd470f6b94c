"""Pixel conversions and flips."""

import jax
import jax.numpy as jnp
import numpy as np

from hcml_jax.augment import augment, normalise, random_colour, random_flip, to_float


def test_uint8_becomes_zero_to_one_and_floats_pass():
    assert to_float(jnp.array([0, 255], jnp.uint8)).tolist() == [0.0, 1.0]
    assert to_float(jnp.array([0.25], jnp.bfloat16)).dtype == jnp.float32


def test_normalised_clips_have_the_usual_mean_and_deviation():
    np.testing.assert_allclose(normalise(jnp.array([0.45, 0.675])), [0, 1], atol=1e-6)


def test_a_flip_mirrors_all_frames_of_a_clip_alike(key):
    clip = jax.random.uniform(key, (64, 3, 2, 4, 3))
    flipped = np.asarray(random_flip(key, clip))
    mirrored = np.asarray(clip)[:, :, :, ::-1]
    which = [np.array_equal(f, m) for f, m in zip(flipped, mirrored, strict=True)]
    same = [np.array_equal(f, c) for f, c in zip(flipped, np.asarray(clip), strict=True)]
    assert all(a != b for a, b in zip(which, same, strict=True))
    assert 16 < sum(which) < 48


def test_colour_of_strength_zero_changes_nothing(key):
    clip = jax.random.uniform(key, (2, 3, 4, 4, 3))
    np.testing.assert_allclose(random_colour(key, clip, 0.0), clip, atol=1e-6)


def test_colour_changes_are_one_affine_map_a_clip_that_keeps_grey_grey(key):
    clip = 0.5 + 0.05 * jax.random.normal(key, (3, 2, 8, 8, 3))  # near grey: nothing saturates
    changed = np.asarray(random_colour(key, clip, 0.4))
    for before, after in zip(np.asarray(clip), changed, strict=True):
        x = np.concatenate([before.reshape(-1, 3), np.ones((before.size // 3, 1))], axis=1)
        weights, residual, *_ = np.linalg.lstsq(x, after.reshape(-1, 3), rcond=None)
        assert residual.max() < 1e-8
        grey = np.array([0.3, 0.3, 0.3, 1]) @ weights
        np.testing.assert_allclose(grey, grey[0], atol=1e-4)
    assert not np.allclose(changed[0] - np.asarray(clip)[0], changed[1] - np.asarray(clip)[1])


def test_augment_is_the_plain_clip_where_nothing_is_asked(key):
    clip = jnp.full((1, 1, 2, 2, 3), 51, jnp.uint8)
    np.testing.assert_allclose(augment(key, clip, False, 0.0), 0.2, rtol=1e-6)
