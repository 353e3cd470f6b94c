"""Colour jitter, grayscale and Gaussian blur of clips, as MoCo v2 draws them (Chen et al., 2020)."""

import dataclasses
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hcml_jax.config import ConfigError
from hcml_jax.rng import stream

LUMA = (0.299, 0.587, 0.114)  # of red, green and blue (ITU-R 601)
TRUNCATE = 4.0  # a blur reaches so many standard deviations


@dataclasses.dataclass(frozen=True)
class PhotometricConfig:
    """How likely and how strong photometric changes are; defaults are MoCo v2's.

    Attributes:
      jitter: share of the clips whose colours are jittered.
      brightness, contrast, saturation: each factor is drawn from 1 - this to 1 + this.
      hue: the hue turns by up to this share of the colour circle either way.
      grayscale: share of the clips that lose their colour.
      blur: share of the clips that are blurred.
      sigma: (least, most) standard deviation of the blur, in pixels.
    """

    jitter: float = 0.8
    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.4
    hue: float = 0.1
    grayscale: float = 0.2
    blur: float = 0.5
    sigma: tuple[float, float] = (0.1, 2.0)

    def __post_init__(self):
        for name in ("jitter", "brightness", "contrast", "saturation", "grayscale", "blur"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} must be between 0 and 1, not {getattr(self, name)}")
        if not 0 <= self.hue <= 0.5:
            raise ConfigError(f"hue must be between 0 and 0.5, not {self.hue}")
        if not 0 < self.sigma[0] <= self.sigma[1]:
            raise ConfigError(f"sigma must be (least, most), above 0, not {self.sigma}")


class Photometric(NamedTuple):
    """What was drawn for B clips.

    Attributes:
      factors: float32 [B, 3], of brightness, contrast and saturation; 1 changes nothing.
      hue: float32 [B], turn of the hue as a share of the colour circle.
      order: int [B, 4], the order of brightness (0), contrast (1), saturation (2) and hue (3).
      gray: bool [B], whether a clip loses its colour.
      sigma: float32 [B], standard deviation of the blur in pixels; 0: none.
    """

    factors: jax.Array
    hue: jax.Array
    order: jax.Array
    gray: jax.Array
    sigma: jax.Array


def draw_photometric(key: jax.Array, number: int, config: PhotometricConfig) -> Photometric:
    """Draws what happens to each of `number` clips."""

    def happens(name, share):
        return jax.random.bernoulli(stream(key, name), share, (number,))

    jittered = happens("jitter", config.jitter)
    spread = jnp.asarray((config.brightness, config.contrast, config.saturation), jnp.float32)
    factors = 1 + spread * jax.random.uniform(stream(key, "factors"), (number, 3), minval=-1, maxval=1)
    hue = config.hue * jax.random.uniform(stream(key, "hue"), (number,), minval=-1, maxval=1)
    least, most = config.sigma
    sigma = jax.random.uniform(stream(key, "sigma"), (number,), minval=least, maxval=most)
    return Photometric(
        factors=jnp.where(jittered[:, None], factors, 1.0),
        hue=jnp.where(jittered, hue, 0.0),
        order=jnp.argsort(jax.random.uniform(stream(key, "order"), (number, 4)), axis=1),
        gray=happens("grayscale", config.grayscale),
        sigma=jnp.where(happens("blur", config.blur), sigma, 0.0),
    )


def change_photometry(clip: jax.Array, drawn: Photometric, config: PhotometricConfig) -> jax.Array:
    """Jitters, grays and blurs clips as was drawn by `config`, all frames of one alike.

    Args:
      clip: [B, T, H, W, 3] in [0, 1], floating; what is computed is float32.
      drawn: see `draw_photometric`.
      config: by which it was drawn.

    Returns:
      [B, T, H, W, 3] in [0, 1], the dtype of `clip`.
    """
    dtype, clip = clip.dtype, clip.astype(jnp.float32)
    clip = jitter_colours(clip, drawn.factors, drawn.hue, drawn.order)
    gray = jnp.broadcast_to(grayscale(clip), clip.shape)
    clip = jnp.where(drawn.gray[:, None, None, None, None], gray, clip)
    return gaussian_blur(clip, drawn.sigma, largest=config.sigma[1]).astype(dtype)


def jitter_colours(clip: jax.Array, factors: jax.Array, hue: jax.Array, order: jax.Array) -> jax.Array:
    """Changes brightness, contrast, saturation and hue of clips, one after another.

    Brightness blends each frame with black, contrast with its mean gray, saturation with itself in gray, as PIL's
    `ImageEnhance` does.

    Args:
      clip: float32 [B, T, H, W, 3] in [0, 1].
      factors, hue, order: see `Photometric`.

    Returns:
      [B, T, H, W, 3] in [0, 1].
    """
    for number in range(4):
        operation = order[:, number]
        is_contrast, is_saturation, is_hue = ((operation == n)[:, None, None, None, None] for n in (1, 2, 3))
        gray = grayscale(clip)
        other = jnp.where(is_contrast, gray.mean((2, 3), keepdims=True), jnp.where(is_saturation, gray, 0.0))
        blend = jnp.minimum(operation, 2)
        factor = jnp.take_along_axis(factors, blend[:, None], axis=1)[..., None, None, None]
        blended = jnp.clip(factor * clip + (1 - factor) * other, 0, 1)
        clip = jnp.where(is_hue, turn_hue(clip, hue), blended)
    return clip


def grayscale(clip: jax.Array) -> jax.Array:
    """The luma `[..., 1]` of colours `[..., 3]`, floating."""
    return jnp.sum(clip * jnp.asarray(LUMA, clip.dtype), axis=-1, keepdims=True)


def turn_hue(clip: jax.Array, turn: jax.Array) -> jax.Array:
    """Turns the hue of clips, float32 `[B, T, H, W, 3]` in [0, 1], by shares `[B]` of the colour circle (HSV)."""
    value = clip.max(-1, keepdims=True)
    chroma = value - clip.min(-1, keepdims=True)
    red, green, blue = jnp.split(clip, 3, axis=-1)
    divisor = jnp.where(chroma > 0, chroma, 1.0)
    sextant = jnp.where(
        value == red,
        (green - blue) / divisor,
        jnp.where(value == green, 2 + (blue - red) / divisor, 4 + (red - green) / divisor),
    )
    sextant += 6 * turn[:, None, None, None, None]
    # How far each channel lies below the value, by its distance on the circle (Smith, 1978).
    place = (sextant + jnp.asarray((5.0, 3.0, 1.0), clip.dtype)) % 6
    return value - chroma * jnp.clip(jnp.minimum(place, 4 - place), 0, 1)


def gaussian_blur(clip: jax.Array, sigma: jax.Array, *, largest: float) -> jax.Array:
    """Blurs the frames of clips.

    Args:
      clip: float32 [B, T, H, W, C]; frames are edge-padded.
      sigma: [B], standard deviations in pixels, at most `largest`; 0: no blur.
      largest: the sigma that sets the kernel's radius.

    Returns:
      [B, T, H, W, C].
    """
    radius = math.ceil(TRUNCATE * largest)
    precise = {"precision": jax.lax.Precision.HIGHEST}
    clip = jnp.einsum("bij,btjwc->btiwc", _blur_matrices(sigma, radius, clip.shape[2]), clip, **precise)
    return jnp.einsum("bij,bthjc->bthic", _blur_matrices(sigma, radius, clip.shape[3]), clip, **precise)


def _blur_matrices(sigma: jax.Array, radius: int, size: int) -> jax.Array:
    """`[B, size, size]`: weights of the pixels of a line in those of the blurred line. A product with them was faster
    than a sum over the kernel's taps on a CPU, and it suits matrix units."""
    taps = np.arange(-radius, radius + 1, dtype=np.float32)
    weights = jnp.exp(-0.5 * jnp.square(taps / jnp.maximum(sigma, 1e-3)[:, None]))
    weights /= weights.sum(1, keepdims=True)
    read = np.clip(np.arange(size)[:, None] + taps, 0, size - 1)  # [size, taps]: which pixel each tap reads
    shares = np.float32(read[..., None] == np.arange(size))
    return jnp.einsum("bk,ikj->bij", weights, shares, precision=jax.lax.Precision.HIGHEST)
