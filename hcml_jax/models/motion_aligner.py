"""A backbone whose maps are decoded into the motion of another view, and projected to be compared (FIMA)."""

from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from hcml_jax.models.backbone import Backbone
from hcml_jax.models.heads import Projection
from hcml_jax.models.layers import Train, at_least_float32
from hcml_jax.models.motion_decoder import MotionDecoder, MotionDecoderConfig

SHARED = "shared"


class MotionAligner(nn.Module):
    """The network of FIMA (Figure 2): one encoder for frames and for their differences, motion decoders, projections.

    Attributes:
      backbone: the encoder.
      projections: names of the contrasts that have their own projection; ("shared",): one serves all.
      decoders: names of the contrasts that have their own decoder, likewise; (): none.
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

    def __call__(self, clip: jax.Array, train: Train) -> jax.Array:
        """Everything that there is, for `init`."""
        maps = self.encode(clip, train)
        for name in self.projections:
            self.project(maps, name)
        for name in self.decoders:
            self.decode(maps, maps, name, train)
        return maps

    def encode(self, clip: jax.Array, train: Train) -> jax.Array:
        """Maps normalised clips `[B, T, H, W, 3]`, of frames or of their differences, to the backbone's last features,
        float32 `[B, T', H', W', C]`."""
        _, features = self.backbone(clip, train)
        return at_least_float32(features[self.backbone.stages[-1]])

    def project(self, x: jax.Array, name: str) -> jax.Array:
        """Maps `[..., C]` to `[..., channels]`, which the contrast called `name` compares."""
        return self.projection[chosen(name, self.projections)](x)

    def decode(self, queries: jax.Array, memory: jax.Array, name: str, train: Train) -> tuple[jax.Array, jax.Array]:
        """See `MotionDecoder`; the one called `name`."""
        return self.motion_decoder[chosen(name, self.decoders)](queries, memory, train)

    @property
    def key_modules(self) -> tuple[str, ...]:
        """Names of the modules that make keys."""
        return ("backbone", *(f"projection_{name}" for name in self.projections))

    def attention(
        self, params: Mapping[str, Any], queries: jax.Array, memory: jax.Array, name: str
    ) -> jax.Array | None:
        """Attention of each place to each place of the memory at the same time: the mean over heads in the last layer.

        Args:
          params: the network's.
          queries, memory: `[B, T', H, W, C]`.
          name: of the decoder.

        Returns:
          `[B, T', HW, HW]`; None if `params` lack this decoder.
        """
        module = f"motion_decoder_{chosen(name, self.decoders)}"
        if module not in params:
            return None
        options = {"method": "decode", "mutable": ["intermediates"]}
        _, sown = self.apply({"params": params}, queries, memory, name, False, **options)
        (weights,) = sown["intermediates"][module][f"layer{self.decoder.layers - 1}"]["attention"]["attention_weights"]
        of_places, (clips, times) = weights.mean(1)[:, 1:], queries.shape[:2]  # the token is first
        return of_places.reshape(clips, times, *of_places.shape[1:])


def chosen(name: str, names: Sequence[str]) -> str:
    """Which of `names` serves for `name`: its own, or the shared one."""
    return name if name in names else SHARED
