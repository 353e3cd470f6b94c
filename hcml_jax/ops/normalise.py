"""Unit vectors with a guarded norm, shared by cost volumes and contrastive losses."""

import jax
import jax.numpy as jnp

SHORTEST = 1e-6


def unit_vectors(vectors) -> jax.Array:
    """Scales vectors to length 1, in float32.

    A vector shorter than 1e-6 has no direction to speak of: it becomes zero, and so does its
    gradient, where a bare division would give NaN for a zero vector.

    Args:
      vectors: [..., C], any floating dtype.

    Returns:
      float32 [..., C], each vector of length 1 or 0.
    """
    vectors = jnp.asarray(vectors).astype(jnp.float32)
    squared = jnp.sum(jnp.square(vectors), axis=-1, keepdims=True)
    # The maximum keeps the gradient of the branch that is not taken finite.
    inverse = jax.lax.rsqrt(jnp.maximum(squared, SHORTEST**2))
    return vectors * jnp.where(squared < SHORTEST**2, 0.0, inverse)
