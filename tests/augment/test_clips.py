"""Pixel conversions and flips."""

import jax
import jax.numpy as jnp
import numpy as np

from hcml_jax.augment import normalise, random_flip, to_float


def test_uint8_becomes_zero_to_one_and_floats_pass():
    assert to_float(jnp.array([0, 255], jnp.uint8)).tolist() == [0.0, 1.0]
    assert to_float(jnp.array([0.25], jnp.bfloat16)).dtype == jnp.float32


def test_each_colour_is_normalised_by_its_own_mean_and_deviation():
    clip = jnp.array([[0.5, 0.5, 0.5], [0.7, 0.6, 0.75]])
    normalised = normalise(clip, mean=(0.5, 0.4, 0.25), std=(0.2, 0.1, 0.25))
    np.testing.assert_allclose(normalised, [[0, 1, 1], [1, 2, 2]], atol=1e-6)


def test_a_flip_mirrors_all_frames_of_a_clip_alike(key):
    clip = jax.random.uniform(key, (64, 3, 2, 4, 3))
    flipped = np.asarray(random_flip(key, clip))
    mirrored = np.asarray(clip)[:, :, :, ::-1]
    which = [np.array_equal(f, m) for f, m in zip(flipped, mirrored, strict=True)]
    same = [np.array_equal(f, c) for f, c in zip(flipped, np.asarray(clip), strict=True)]
    assert all(a != b for a, b in zip(which, same, strict=True))
    assert 16 < sum(which) < 48
