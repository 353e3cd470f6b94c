"""Random parts of clips, each enlarged to the size of its clip."""

import math

import jax
import jax.numpy as jnp

ASPECT = (3 / 4, 4 / 3)


def draw_crop(key: jax.Array, number: int, area: tuple[float, float]) -> jax.Array:
    """Draw boxes `[number, 4]`, (top, left, height, width) as shares of the frame.

    Their area is uniform in `area`, the logarithm of width over height uniform for ratios from 3/4 to 4/3; sides longer
    than the frame are cut to it.
    """
    keys = jax.random.split(key, 3)
    share = jax.random.uniform(keys[0], (number,), minval=area[0], maxval=area[1])
    low, high = map(math.log, ASPECT)
    aspect = jnp.exp(jax.random.uniform(keys[1], (number,), minval=low, maxval=high))
    sides = jnp.minimum(jnp.stack([jnp.sqrt(share / aspect), jnp.sqrt(share * aspect)], axis=-1), 1.0)
    corner = (1 - sides) * jax.random.uniform(keys[2], (number, 2))
    return jnp.concatenate([corner, sides], axis=-1)


def crop(clip: jax.Array, box: jax.Array) -> jax.Array:
    """Crop clips `[B, T, H, W, C]`, float, to boxes `[B, 4]`, and enlarge them bilinearly to the clips' size."""
    down, across = (_weights(box[:, axis], box[:, 2 + axis], clip.shape[2 + axis]) for axis in (0, 1))
    highest = jax.lax.Precision.HIGHEST
    clip = jnp.einsum("bij,btjwc->btiwc", down, clip, precision=highest)
    return jnp.einsum("bij,bthjc->bthic", across, clip, precision=highest)


def _weights(start: jax.Array, length: jax.Array, size: int) -> jax.Array:
    """`[B, size, size]`: weights of each input pixel (last axis) in each output pixel, along one axis."""
    pixels = jnp.arange(size, dtype=jnp.float32)
    place = (pixels + 0.5) * length[:, None] + start[:, None] * size - 0.5
    place = jnp.clip(place, 0, size - 1)
    return jnp.maximum(1 - jnp.abs(place[..., None] - pixels), 0)
