"""Pixel conversions of clips."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp


def to_float(clip: jax.Array) -> jax.Array:
    """uint8 `[0, 255]` to float32 `[0, 1]`; floats pass through as float32."""
    if clip.dtype == jnp.uint8:
        return clip.astype(jnp.float32) / 255.0
    return clip.astype(jnp.float32)


def normalise(clip: jax.Array, mean: Sequence[float], std: Sequence[float]) -> jax.Array:
    """Float `[0, 1]` to about zero mean and unit variance; `mean` and `std` are of red, green and blue."""
    return (clip - jnp.asarray(mean, jnp.float32)) / jnp.asarray(std, jnp.float32)
