"""Base class of backbones: stages in order, motion blocks after any of them, an embedding, and feature specs."""

import dataclasses
from collections.abc import Callable
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from hcml_jax.models.layers import Train, at_least_float32
from hcml_jax.models.motion_block import MotionBlock, MotionBlockConfig


@dataclasses.dataclass(frozen=True)
class FeatureSpec:
    """What a feature map is like.

    Attributes:
      channels: C of `[B, T', H', W', C]`.
      strides: frames, rows and columns of the clip from one cell of the map to the next.
    """

    channels: int
    strides: tuple[int, int, int]


class Backbone(nn.Module):
    """A network of stages; subclasses define these (`stage_specs`), their modules (`stage`) and the embedding.

    Attributes:
      motion_blocks: the stages after which a motion block stands, lowest first: its motion features are the
        features "level0", "level1", ...
      motion: sizes of the motion blocks.
      dtype: what convolutions compute in; parameters and statistics are float32.
    """

    motion_stages: ClassVar[tuple[str, str, str]]  # where HCML's three levels stand

    motion_blocks: tuple[str, ...] = ()
    motion: MotionBlockConfig = MotionBlockConfig()
    dtype: jnp.dtype = jnp.float32

    @property
    def stage_specs(self) -> dict[str, FeatureSpec]:
        """What each stage gives, lowest first."""
        raise NotImplementedError

    @property
    def stages(self) -> tuple[str, ...]:
        """Names of the stages and of their modules, lowest first; a motion block can follow each."""
        return tuple(self.stage_specs)

    def stage(self, name: str) -> Callable[[jax.Array, Train], jax.Array]:
        """The module of a stage."""
        raise NotImplementedError

    def embed(self, x: jax.Array, train: Train) -> jax.Array:
        """The embedding `[B, C]`, float32, of the last stage's features."""
        del train
        return at_least_float32(x).mean((1, 2, 3))

    @property
    def feature_spec(self) -> dict[str, FeatureSpec]:
        """Name -> what the feature of that name is like, motion features included."""
        specs = dict(self.stage_specs)
        for stage in self.motion_blocks:
            features = specs[stage]
            channels = features.channels // self.motion.channel_divisor
            specs[self.level(stage)] = FeatureSpec(channels, features.strides)
        return specs

    def modules_of(self, stage: str) -> tuple[str, ...]:
        """Names of the modules that compute a stage's features, its own included, motion blocks excluded."""
        return self.stages[: self.stages.index(stage) + 1]

    def frames_of(self, feature: str, clip: jax.Array) -> jax.Array:
        """The frames `[B, T', ...]` of clips `[B, T, ...]` that the time steps of this feature stand for."""
        return clip[:, :: self.feature_spec[feature].strides[0]]

    def last_map(self, features: dict[str, jax.Array]) -> jax.Array:
        """The last stage's features, those of all pathways side by side: `[B, T', H', W', C]`."""
        return features[self.stages[-1]]

    def level(self, stage: str) -> str:
        """The name of the motion features behind `stage`."""
        return f"level{self.motion_blocks.index(stage)}"

    @nn.compact
    def __call__(self, clip: jax.Array, train: Train) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Embeds clips.

        Args:
          clip: `[B, T, H, W, 3]`, normalised.
          train: how batch normalisation behaves.

        Returns:
          The embedding `[B, C]`, float32, and features, as `feature_spec` describes them: each stage's
          `[B, T', H', W', C']` (behind its motion block, where one stands) and "level0", ... (the motion features).

        Raises:
          ValueError: if the clip is shorter or smaller than the network's strides.
        """
        self.check_clip(clip.shape)
        x, features = clip, {}
        for name in self.stages:
            x = self.stage(name)(x, train)
            x, found = self.move(name, x, train)
            features |= {name: x, **found}
        return self.embed(x, train), features

    def move(self, stage: str, x: jax.Array, train: Train) -> tuple[jax.Array, dict[str, jax.Array]]:
        """The stage's features behind its motion block, if one stands there, and the motion features."""
        if stage not in self.motion_blocks:
            return x, {}
        level = self.level(stage)
        x, motion = MotionBlock(self.motion, self.dtype, name=level)(x, train)
        return x, {level: motion}

    @property
    def shortest_clip(self) -> tuple[int, int, int]:
        """`(T, H, W)` of the shortest and smallest clip that it takes: its strides."""
        specs = self.stage_specs.values()
        frames, height, width = (max(spec.strides[axis] for spec in specs) for axis in range(3))
        return frames, height, width

    def check_clip(self, shape: tuple[int, ...]) -> None:
        """Raises ValueError for a clip `[B, T, H, W, 3]` that is shorter or smaller than the network's strides."""
        frames, height, width = strides = self.shortest_clip
        if len(shape) != 5 or any(n < s for n, s in zip(shape[1:4], strides, strict=True)):
            raise ValueError(
                f"clips must be [B, T, H, W, 3] of {frames} frames or more of {height} x {width} pixels or more, "
                f"the strides of this backbone; found {list(shape)}"
            )


def stacked_strides(strides: list[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
    """Cumulative strides, relative to the clip, after each of these successive strides."""
    return [tuple(products) for products in np.cumprod(strides, axis=0).tolist()]
