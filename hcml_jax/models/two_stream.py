"""Frames and flow, each with an encoder of its own, as vectors of clips and of single times (MSCL)."""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from hcml_jax.models.backbone import Backbone
from hcml_jax.models.heads import Projection
from hcml_jax.models.layers import Train, at_least_float32
from hcml_jax.models.pyramid import TemporalPyramid


class Stream(NamedTuple):
    """Outputs of an encoder for clips.

    Attributes:
      embedding: float32 `[B, C]`, the backbone's.
      features: the backbone's, by name.
      clip: float32 `[B, D]`, the projection that clips are compared by.
      times: float32 `[B, T', D]`, the projections that single times are compared by; None where not asked for.
    """

    embedding: jax.Array
    features: dict[str, jax.Array]
    clip: jax.Array
    times: jax.Array | None = None


class TwoStream(nn.Module):
    """An encoder of frames and one of flow images (MSCL, Figure 2).

    Attributes:
      backbone: of frames.
      flow_backbone: of flow images, without strides in time; None: there is no flow.
      local_stages: stages of `backbone` whose features a temporal pyramid merges for single times; with one stage, an
        additional layer replaces the pyramid (MSCL Table 2); (): single times are not compared.
      channels: D, of all projections.
      dtype: what the pyramid computes in.
    """

    backbone: Backbone
    flow_backbone: Backbone | None = None
    local_stages: tuple[str, ...] = ()
    channels: int = 128
    dtype: jnp.dtype = jnp.float32

    def setup(self):
        self.projection = Projection(self.channels)
        if self.local_stages:
            self.local = LocalHead(self.local_stages, self.channels, self.dtype)
        if self.flow_backbone is not None:
            self.flow_projection = Projection(self.channels)
            if self.local_stages:
                self.flow_local = nn.Dense(self.channels)

    def __call__(self, clip: jax.Array, images: jax.Array | None, train: Train) -> tuple[Stream, Stream | None]:
        """Everything that there is, for `init`: see `frames` and `flow`."""
        single = bool(self.local_stages)
        return self.frames(clip, train, single), None if images is None else self.flow(images, train, single)

    def frames(self, clip: jax.Array, train: Train, single: bool = False) -> Stream:
        """Encode normalised clips `[B, T, H, W, 3]`; `single` adds vectors of single times."""
        embedding, features = self.backbone(clip, train)
        times = self.local(features, train) if single else None
        return Stream(embedding, features, self.projection(embedding), times)

    def flow(self, images: jax.Array, train: Train, single: bool = False) -> Stream:
        """Encode normalised flow images `[B, T, H, W, 3]`; `single` adds vectors of single times, each from its image
        alone where the backbone is 2-D."""
        embedding, features = self.flow_backbone(images, train)
        times = None
        if single:
            last = features[self.flow_backbone.stages[-1]]
            times = self.flow_local(at_least_float32(last).mean((2, 3)))
        return Stream(embedding, features, self.flow_projection(embedding), times)


class LocalHead(nn.Module):
    """Vectors of single times, of one stage's features or of several merged by a pyramid.

    Attributes:
      stages: names of the stages, lowest first.
      channels: of the vectors.
      dtype: what the pyramid computes in.
    """

    stages: tuple[str, ...]
    channels: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, features: dict[str, jax.Array], train: Train) -> jax.Array:
        """Maps a backbone's features to `[B, T', channels]`, T' of the first stage."""
        if len(self.stages) == 1:
            return Projection(self.channels, name="projection")(_over_space(features[self.stages[0]]))
        pyramid = TemporalPyramid(self.channels, self.dtype, name="pyramid")
        merged = pyramid([features[stage] for stage in self.stages], train)
        return nn.Dense(self.channels, name="projection")(_over_space(merged))


def _over_space(x: jax.Array) -> jax.Array:
    return at_least_float32(x).mean((2, 3))
