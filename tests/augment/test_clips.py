"""Pixel conversions."""

import jax.numpy as jnp
import numpy as np

from hcml_jax.augment import normalise, to_float


def test_uint8_becomes_zero_to_one_and_floats_pass():
    assert to_float(jnp.array([0, 255], jnp.uint8)).tolist() == [0.0, 1.0]
    assert to_float(jnp.array([0.25], jnp.bfloat16)).dtype == jnp.float32


def test_each_colour_is_normalised_by_its_own_mean_and_deviation():
    clip = jnp.array([[0.5, 0.5, 0.5], [0.7, 0.6, 0.75]])
    normalised = normalise(clip, mean=(0.5, 0.4, 0.25), std=(0.2, 0.1, 0.25))
    np.testing.assert_allclose(normalised, [[0, 1, 1], [1, 2, 2]], atol=1e-6)
