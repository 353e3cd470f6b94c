"""Motion maps of a low resolution brought to that of the frames (CGM-Net)."""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from hcml_jax.models.motion_map_decoder import Filters
from hcml_jax.ops import apply_motion_maps, copying_filter, guided_similarity, periodic_shuffle

INTERPOLATIONS = ("nearest", "bilinear")


class MotionMaps(NamedTuple):
    """Filters `[B, T, H, W, k k]`, float32, for each pixel of T frames; and the pixels from one entry to the next."""

    maps: jax.Array
    dilation: int = 1

    def apply(self, frames: jax.Array) -> jax.Array:
        """The frame that follows each of `frames` `[B, T, H, W, C]`."""
        return apply_motion_maps(frames, self.maps, dilation=self.dilation)


class MotionUpsampler(nn.Module):
    """The context guided motion upsampling layer (CGM-Net 3.2, eq. 2 to 5).

    Attributes:
      scale: s, rows and columns of the outcome to one that it is given.
      filter_size: k of the outcome.
      dtype: what the convolution computes in.
    """

    scale: int = 4
    filter_size: int = 9
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, maps: jax.Array, motion: jax.Array, context: jax.Array) -> MotionMaps:
        """Upsamples `maps` `[B, T, h, w, k' k']` under the guidance of `motion` and `context`, `[B, T, h, w, C]`."""
        similarity = guided_similarity(maps, motion, context)[..., None].astype(self.dtype)
        motion, context = motion.astype(self.dtype), context.astype(self.dtype)
        joined = jnp.concatenate([context, motion, similarity, similarity * context, similarity * motion], axis=-1)
        channels = (self.scale * self.filter_size) ** 2
        pixels = Filters(channels, (1, 3, 3), self.dtype, name="filters")(joined)
        return MotionMaps(periodic_shuffle(pixels, self.scale) + copying_filter(self.filter_size))


def upsample_maps(maps: jax.Array, scale: int, method: str) -> MotionMaps:
    """Upsample motion maps without learnt weights: each entry is interpolated, filters dilated by the scale (Table 6).

    Args:
      maps: `[B, T, h, w, k k]`.
      scale: s.
      method: "nearest" or "bilinear".
    """
    clips, frames, height, width, entries = maps.shape
    return MotionMaps(jax.image.resize(maps, (clips, frames, height * scale, width * scale, entries), method), scale)
