"""Temporal controls: clips without their order or without motion, to see how much of a score is motion."""

import functools

import jax
import jax.numpy as jnp


def reverse(clips, index) -> jax.Array:
    """Clips `[B, T, H, W, 3]` from their last frame to their first."""
    del index
    return jnp.flip(clips, 1)


def shuffle(clips, index) -> jax.Array:
    """The frames of each clip in a random order, which depends on its row of the table `index` `[B]` alone."""
    keys = jax.vmap(functools.partial(jax.random.fold_in, jax.random.key(0)))(index)
    return jax.vmap(jax.random.permutation)(keys, clips)


def still(clips, index) -> jax.Array:
    """The middle frame of each clip, T times."""
    del index
    return jnp.broadcast_to(clips[:, clips.shape[1] // 2, None], clips.shape)


CONTROLS = {"reversed": jax.jit(reverse), "shuffled": jax.jit(shuffle), "single_frame": jax.jit(still)}
