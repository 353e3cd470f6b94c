"""Temporal pyramid: features of several stages on one grid, each at its own pace (Yang et al., 2020)."""

import itertools
import math
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from hcml_jax.models.layers import ConvNorm, Train
from hcml_jax.ops import resize_area


class TemporalPyramid(nn.Module):
    """Brings features of several stages to the coarsest one's places and adds them up at the finest one's times.

    Convolutions of stride 2 in space bring each stage to the places of the last (Yang et al.: spatial modulation). From
    the last one down, each is then repeated in time and added to the one below it (top-down flow of information). Of
    the pyramid's outputs only the first is computed, which MSCL uses (section 3.1).

    Attributes:
      channels: of the outcome.
      dtype: what it computes in.
    """

    channels: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, features: Sequence[jax.Array], train: Train) -> jax.Array:
        """Maps features `[B, T', H', W', C']`, lowest stage first, to `[B, T, H, W, channels]`: T of the first, H and W
        of the last.

        Raises:
          ValueError: a stage has fewer places or times than the next one.
        """
        height, width = features[-1].shape[2:4]
        for lower, upper in itertools.pairwise(features):
            if any(n < m for n, m in zip(lower.shape[1:4], upper.shape[1:4], strict=True)):
                raise ValueError(f"features must get coarser from stage to stage; found {[x.shape for x in features]}")
        merged = None
        for number, x in reversed(list(enumerate(features))):
            level = self._at_places(x, (height, width), number, train)
            merged = level if merged is None else level + repeat_in_time(merged, level.shape[1])
        return merged

    def _at_places(self, x: jax.Array, places: tuple[int, int], number: int, train: Train) -> jax.Array:
        """A stage's features `[B, T', H, W, channels]` at the places of the last stage."""
        for halving in range(round(math.log2(x.shape[2] / places[0]))):
            name = f"level{number}_down{halving}"
            x = ConvNorm(self.channels, (1, 3, 3), (1, 2, 2), dtype=self.dtype, name=name)(x, train)
        if x.shape[2:4] != places:  # a backbone that drops what does not divide, as S3D's last pool does
            x = resize_area(x, *places)
        return ConvNorm(self.channels, relu=False, dtype=self.dtype, name=f"level{number}")(x, train)


def repeat_in_time(x: jax.Array, frames: int) -> jax.Array:
    """Features `[B, T, ...]` repeated to `frames` times, T or more: each time has the latest up to it."""
    return x[:, jnp.arange(frames) * x.shape[1] // frames]
