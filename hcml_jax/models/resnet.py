"""Residual networks for clips: R2D, with 2-D convolutions on each frame, and R(2+1)D (HCML, supplement Table 8)."""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from hcml_jax.models.layers import ConvNorm, Train, max_pool_frames
from hcml_jax.models.motion_block import MotionBlock, MotionBlockConfig

STAGES = ("res2", "res3", "res4", "res5")
# depth -> (blocks of each stage, whether blocks are bottlenecks)
DEPTHS = {
    10: ((1, 1, 1, 1), False),
    18: ((2, 2, 2, 2), False),
    34: ((3, 4, 6, 3), False),
    50: ((3, 4, 6, 3), True),
    101: ((3, 4, 23, 3), True),
    152: ((3, 8, 36, 3), True),
}


class BasicBlock(nn.Module):
    """Two 1x3x3 convolutions with a shortcut (He et al., 2016)."""

    features: int
    strides: tuple[int, int, int] = (1, 1, 1)
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: Train) -> jax.Array:
        """Maps `[B, T, H, W, C]` to `[B, T', H', W', features]`."""
        y = ConvNorm(self.features, (1, 3, 3), self.strides, dtype=self.dtype, name="conv1")(
            x, train
        )
        y = ConvNorm(self.features, (1, 3, 3), relu=False, dtype=self.dtype, name="conv2")(y, train)
        return nn.relu(y + _shortcut(x, y, self.strides, train, self.dtype))


class Bottleneck(nn.Module):
    """1x1x1, 1x3x3 and 1x1x1 convolutions with a shortcut (He et al., 2016); strides sit on the 1x3x3.

    With `temporal`, a 3x1x1 convolution precedes the 1x3x3 and takes the stride in time (HCML, supplement Table 8).
    """

    features: int
    strides: tuple[int, int, int] = (1, 1, 1)
    dtype: jnp.dtype = jnp.float32
    temporal: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, train: Train) -> jax.Array:
        """Maps `[B, T, H, W, C]` to `[B, T', H', W', 4 features]`."""
        y = ConvNorm(self.features, dtype=self.dtype, name="conv1")(x, train)
        strides = self.strides
        if self.temporal:
            in_time, strides = (strides[0], 1, 1), (1, *strides[1:])
            y = ConvNorm(self.features, (3, 1, 1), in_time, dtype=self.dtype, name="temporal")(
                y, train
            )
        y = ConvNorm(self.features, (1, 3, 3), strides, dtype=self.dtype, name="conv2")(y, train)
        y = ConvNorm(4 * self.features, relu=False, dtype=self.dtype, name="conv3")(y, train)
        return nn.relu(y + _shortcut(x, y, self.strides, train, self.dtype))


def _shortcut(x, y, strides, train: Train, dtype) -> jax.Array:
    """Called inside a compact block: the identity, or a projection where the shape changes."""
    if x.shape == y.shape:
        return x
    return ConvNorm(y.shape[-1], (1, 1, 1), strides, relu=False, dtype=dtype, name="shortcut")(
        x, train
    )


class ResNet(nn.Module):
    """R2D or R(2+1)D of any depth and width, with motion blocks after any of its stages.

    Attributes:
      depth: one of `DEPTHS`.
      temporal_stages: the stages with 3x1x1 convolutions; needs bottlenecks. HCML's R(2+1)D has them in res4 and res5.
      width: channels of the stem and of the first stage's 3x3 convolutions.
      stem_pool: whether a 3x3 max-pool of stride 2 follows the stem (off for small frames).
      temporal_strides: of res2 ... res5; HCML halves time at res3 and at res4.
      motion_blocks: the stages after which a motion block stands, lowest first: its motion features are the
        features "level0", "level1", ...
      motion: sizes of the motion blocks.
      dtype: what convolutions compute in; parameters and statistics are float32.
    """

    depth: int
    temporal_stages: tuple[str, ...] = ()
    width: int = 64
    stem_pool: bool = True
    temporal_strides: tuple[int, int, int, int] = (1, 2, 2, 1)
    motion_blocks: tuple[str, ...] = ()
    motion: MotionBlockConfig = MotionBlockConfig()
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, clip: jax.Array, train: Train) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Embeds clips.

        Args:
          clip: `[B, T, H, W, 3]`, normalised.
          train: how batch normalisation behaves.

        Returns:
          The embedding `[B, C]`, float32, and features: "stem", "res2" ... "res5" `[B, T', H', W', C']` (behind
          their motion block, where one stands) and "level0", ... (the motion features).
        """
        x = ConvNorm(self.width, (1, 7, 7), (1, 2, 2), dtype=self.dtype, name="stem")(clip, train)
        x = max_pool_frames(x) if self.stem_pool else x
        features = {"stem": x}
        for number, stage in enumerate(STAGES):
            x = self._stage(number, stage)(x, train)
            if stage in self.motion_blocks:
                level = f"level{self.motion_blocks.index(stage)}"
                x, features[level] = MotionBlock(self.motion, self.dtype, name=level)(x, train)
            features[stage] = x
        return x.astype(jnp.float32).mean((1, 2, 3)), features

    def _stage(self, number: int, name: str) -> nn.Module:
        blocks, bottleneck = DEPTHS[self.depth]
        temporal, spatial = self.temporal_strides[number], 1 if number == 0 else 2
        block = Bottleneck if bottleneck else BasicBlock
        if name in self.temporal_stages:
            block = functools.partial(Bottleneck, temporal=True)
        return Stage(
            block=block,
            blocks=blocks[number],
            features=self.width * 2**number,
            strides=(temporal, spatial, spatial),
            dtype=self.dtype,
            name=name,
        )


class Stage(nn.Module):
    """Blocks at one resolution; the first one strides."""

    block: Callable[..., nn.Module]
    blocks: int
    features: int
    strides: tuple[int, int, int]
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: Train) -> jax.Array:
        """Maps `[B, T, H, W, C]` to `[B, T', H', W', C']`."""
        for number in range(self.blocks):
            strides = self.strides if number == 0 else (1, 1, 1)
            block = self.block(self.features, strides, self.dtype, name=f"block{number}")
            x = block(x, train)
        return x
