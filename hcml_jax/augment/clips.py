"""Pixel conversions and flips of batches of clips."""

import jax
import jax.numpy as jnp

# The mean and standard deviation that video codebases use for every channel of Kinetics.
MEAN, STD = 0.45, 0.225


def to_float(clip: jax.Array) -> jax.Array:
    """uint8 `[0, 255]` to float32 `[0, 1]`; floats pass through as float32."""
    if clip.dtype == jnp.uint8:
        return clip.astype(jnp.float32) / 255.0
    return clip.astype(jnp.float32)


def normalise(clip: jax.Array) -> jax.Array:
    """Float `[0, 1]` to about zero mean and unit variance."""
    return (clip - MEAN) / STD


def augment(key: jax.Array, clip: jax.Array, flip: bool, colour: float) -> jax.Array:
    """Clips `[B, T, H, W, 3]` as float `[0, 1]`, flipped at random if asked, their colours changed if `colour`."""
    flip_key, colour_key = jax.random.split(key)
    clip = to_float(clip)
    clip = random_flip(flip_key, clip) if flip else clip
    return random_colour(colour_key, clip, colour) if colour else clip


def random_flip(key: jax.Array, clip: jax.Array) -> jax.Array:
    """Mirrors each clip of `[B, T, H, W, C]` left to right with probability one half, all its frames alike."""
    flipped = jax.random.bernoulli(key, shape=(clip.shape[0], 1, 1, 1, 1))
    return jnp.where(flipped, clip[:, :, :, ::-1], clip)


def random_colour(key: jax.Array, clip: jax.Array, strength: float) -> jax.Array:
    """Changes brightness, contrast, saturation and hue of each clip, all its frames alike.

    Args:
      key: a random key.
      clip: `[B, T, H, W, 3]`, float `[0, 1]`.
      strength: 0 changes nothing; contrast and saturation are scaled by 1 - strength to 1 + strength, brightness
        moves by up to strength / 2, hue turns by up to half a circle times strength.

    Returns:
      Clips of the same shape, `[0, 1]`.
    """
    draws = jax.random.uniform(key, (4, clip.shape[0]), minval=-strength, maxval=strength)
    brightness, contrast, saturation, hue = draws
    matrix = (1 + contrast)[:, None, None] * _hue_and_saturation(jnp.pi * hue, 1 + saturation)
    # About mid-grey, so that contrast and saturation leave the mean where it was.
    moved = jnp.einsum("bthwc,bcd->bthwd", clip - 0.5, matrix)
    return jnp.clip(moved + 0.5 + 0.5 * brightness[:, None, None, None, None], 0.0, 1.0)


def _hue_and_saturation(angle: jax.Array, saturation: jax.Array) -> jax.Array:
    """`[B, 3, 3]`: turns colours about the grey axis and scales their distance from it (Rodrigues' formula)."""
    grey = jnp.full((3, 3), 1 / 3)
    cross = jnp.array([[0.0, 1, -1], [-1, 0, 1], [1, -1, 0]]) / jnp.sqrt(3.0)
    cos, sin = (f(angle)[:, None, None] for f in (jnp.cos, jnp.sin))
    turned = cos * (jnp.eye(3) - grey) + sin * cross
    return grey + saturation[:, None, None] * turned
