import jax
import jax.numpy as jnp
import numpy as np

from hcml_jax.ops import unit_vectors


def test_lengths_are_one_and_directions_kept():
    vectors = np.random.default_rng(0).normal(size=(5, 7)).astype(np.float32)
    expected = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
    np.testing.assert_allclose(unit_vectors(vectors), expected, rtol=1e-6)


def test_bfloat16_is_normalised_in_float32():
    vectors = jnp.asarray(np.random.default_rng(0).normal(size=(5, 64)), jnp.bfloat16)
    units = unit_vectors(vectors)
    assert units.dtype == jnp.float32
    np.testing.assert_allclose(jnp.linalg.norm(units, axis=-1), 1.0, rtol=1e-6)


def test_a_zero_vector_stays_zero_with_zero_gradient():
    units, pullback = jax.vjp(unit_vectors, jnp.zeros((2, 3)))
    np.testing.assert_array_equal(units, 0)
    np.testing.assert_array_equal(pullback(jnp.ones((2, 3)))[0], 0)
