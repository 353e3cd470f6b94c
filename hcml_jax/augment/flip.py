"""Mirroring clips, and the flow of clips."""

import jax
import jax.numpy as jnp


def draw_flip(key: jax.Array, number: int) -> jax.Array:
    """bool `[number]`: which clips are mirrored, half of them."""
    return jax.random.bernoulli(key, shape=(number,))


def flip(clip: jax.Array, flipped: jax.Array) -> jax.Array:
    """Mirror left to right those clips of `[B, T, H, W, C]` that `flipped` `[B]` marks."""
    return jnp.where(flipped[:, None, None, None, None], clip[:, :, :, ::-1], clip)


def flip_flow(flow: jax.Array, flipped: jax.Array) -> jax.Array:
    """The flow `[B, T, H, W, 2]` of clips that are mirrored likewise: what moved right moves left."""
    signs = jnp.where(flipped[:, None], jnp.asarray([-1, 1], flow.dtype), jnp.ones((), flow.dtype))
    return flip(flow, flipped) * signs[:, None, None, None]
