"""A backbone whose maps are decoded into the motion of another view, and projected to be compared (FIMA)."""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from hcml_jax.models.backbone import Backbone
from hcml_jax.models.heads import Projection
from hcml_jax.models.layers import Train, at_least_float32
from hcml_jax.models.motion_decoder import MotionDecoder, MotionDecoderConfig

SHARED = "shared"


class Maps(NamedTuple):
    """What the backbone makes of clips: its embedding `[B, C]` and its last features `[B, T', H', W', C]`, float32."""

    embedding: jax.Array
    map: jax.Array


class MotionAligner(nn.Module):
    """The network of FIMA (Figure 2): one encoder for frames and for their differences, motion decoders, projections.

    Attributes:
      backbone: the encoder.
      projections: names of what is projected, each by layers of its own; ("shared",): all by the same.
      decoders: names of what is decoded, likewise; (): nothing is.
      decoder: sizes of the decoders.
      hidden, channels: of the projections.
      dtype: what the decoders compute in.
    """

    backbone: Backbone
    projections: tuple[str, ...] = (SHARED,)
    decoders: tuple[str, ...] = (SHARED,)
    decoder: MotionDecoderConfig = MotionDecoderConfig()
    hidden: int = 1024
    channels: int = 128
    dtype: jnp.dtype = jnp.float32

    def setup(self):
        self.projection = {name: Projection(self.channels, self.hidden) for name in self.projections}
        self.motion_decoder = {name: MotionDecoder(self.decoder, self.dtype) for name in self.decoders}

    def __call__(self, clip: jax.Array, train: Train) -> Maps:
        """Everything that there is, for `init`."""
        maps = self.encode(clip, train)
        for name in self.projections:
            self.project(maps.embedding, name)
        for name in self.decoders:
            self.decode(maps.map, maps.map, name, train)
        return maps

    def encode(self, clip: jax.Array, train: Train) -> Maps:
        """Encodes normalised clips `[B, T, H, W, 3]`, of frames or of their differences."""
        embedding, features = self.backbone(clip, train)
        return Maps(embedding, at_least_float32(features[self.backbone.stages[-1]]))

    def project(self, x: jax.Array, name: str) -> jax.Array:
        """Maps `[..., C]` to `[..., channels]`, which the contrast called `name` compares."""
        return _named(self.projection, name)(x)

    def decode(self, queries: jax.Array, memory: jax.Array, name: str, train: Train) -> tuple[jax.Array, jax.Array]:
        """See `MotionDecoder`; the one called `name`."""
        return _named(self.motion_decoder, name)(queries, memory, train)


def _named(modules: dict[str, nn.Module], name: str) -> nn.Module:
    return modules[name] if name in modules else modules[SHARED]
