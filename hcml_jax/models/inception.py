"""Inception-v1 for clips: I3D (Carreira and Zisserman, 2017) and S3D (Xie et al., 2018)."""

from collections.abc import Callable
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from hcml_jax.models.backbone import Backbone, FeatureSpec, stacked_strides
from hcml_jax.models.convolution import Padding, paddings
from hcml_jax.models.layers import ConvNorm, FactorisedConvNorm, Train
from hcml_jax.models.pool import max_pool, mean_pool

# Channels of a block: branch 0; 1x1x1 and 3x3x3 of branch 1; the same of branch 2; branch 3.
BLOCKS = {
    "mixed3": {"b": (64, 96, 128, 16, 32, 32), "c": (128, 128, 192, 32, 96, 64)},
    "mixed4": {
        "b": (192, 96, 208, 16, 48, 64),
        "c": (160, 112, 224, 24, 64, 64),
        "d": (128, 128, 256, 24, 64, 64),
        "e": (112, 144, 288, 32, 64, 64),
        "f": (256, 160, 320, 32, 128, 128),
    },
    "mixed5": {"b": (256, 160, 320, 32, 128, 128), "c": (384, 192, 384, 48, 128, 128)},
}
STRIDES = {"conv1": (2, 2, 2), "conv2": (1, 2, 2), "mixed3": (1, 2, 2), "mixed4": (2, 2, 2), "mixed5": (2, 2, 2)}
IN_TIME = (7, 3, 2)  # windows that stride in time: conv1's, and those of the pools before mixed4 and mixed5


class Inception(Backbone):
    """I3D, or S3D where its convolutions are factorised.

    Padding is as in each published network: I3D pads as TensorFlow does, S3D by half its kernels, except that its last
    pool pads nothing. The embedding is the mean over the positions of a 2x7x7 window, which shrinks to smaller maps.

    Attributes:
      factorised: whether kxkxk convolutions run as 1xkxk and kx1x1 (S3D).
    """

    motion_stages: ClassVar = ("conv2", "mixed3", "mixed4")

    factorised: bool = False

    @property
    def stage_specs(self) -> dict[str, FeatureSpec]:
        """ "conv1", "conv2", "mixed3", "mixed4", "mixed5": what stands before the next pool.

        Where a clip's sides do not divide by the strides, S3D's "mixed5" has a cell less: its pool drops what is left.
        """
        last = {stage: list(blocks.values())[-1] for stage, blocks in BLOCKS.items()}
        mixed = {stage: b0 + b1 + b2 + b3 for stage, (b0, _, b1, _, b2, b3) in last.items()}
        channels = {"conv1": 64, "conv2": 192, **mixed}
        strides = stacked_strides(list(STRIDES.values()))
        return {name: FeatureSpec(channels[name], s) for name, s in zip(STRIDES, strides, strict=True)}

    def frames_of(self, feature: str, clip: jax.Array) -> jax.Array:
        """See `Backbone`; where I3D pads less before than behind, features stand later."""
        frames, start, stride = clip.shape[1], 0, 1
        goal = self.feature_spec[feature].strides[0]
        for window in IN_TIME:
            if stride == goal:
                break
            ((before, _),) = paddings([frames], [window], [2], self._padding)
            start += stride * ((window - 1) // 2 - before)
            frames, stride = -(-frames // 2), 2 * stride
        return clip[:, start::goal]

    @property
    def _padding(self) -> Padding:
        return "half" if self.factorised else "same"

    def stage(self, name: str) -> Callable[[jax.Array, Train], jax.Array]:
        """The module of a stage, which begins with a pool."""
        shared = (self.factorised, self.dtype)
        if name == "conv1":
            return _unit(64, 7, 2, *shared, name=name)
        window = {"conv2": (1, 3, 3), "mixed3": (1, 3, 3), "mixed4": (3, 3, 3), "mixed5": (2, 2, 2)}
        padding = self._padding
        if self.factorised and name == "mixed5":
            padding = "valid"
        if name == "conv2":
            convolve = Conv2(*shared, name=name)
        else:
            convolve = Mixed(tuple(BLOCKS[name].items()), *shared, name=name)
        return lambda x, train: convolve(max_pool(x, window[name], STRIDES[name], padding), train)

    def embed(self, x: jax.Array, train: Train) -> jax.Array:
        """The embedding `[B, 1024]`, float32."""
        del train
        return mean_pool(x, (2, 7, 7))


def _unit(features: int, k: int, stride: int, factorised: bool, dtype, name: str) -> nn.Module:
    """A kxkxk convolution, whole or factorised, with normalisation and ReLU, as published."""
    shared = {"momentum": 0.999, "epsilon": 1e-3, "dtype": dtype, "name": name}
    if factorised and k > 1:
        return FactorisedConvNorm(features, (k, k), (stride, stride), features, **shared)
    padding = "half" if factorised else "same"
    return ConvNorm(features, (k, k, k), (stride, stride, stride), padding=padding, **shared)


class Conv2(nn.Module):
    """A 1x1x1 and a 3x3x3 convolution."""

    factorised: bool
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: Train) -> jax.Array:
        """Maps `[B, T, H, W, 64]` to `[B, T, H, W, 192]`."""
        shared = (self.factorised, self.dtype)
        x = _unit(64, 1, 1, *shared, name="reduce")(x, train)
        return _unit(192, 3, 1, *shared, name="expand")(x, train)


class Mixed(nn.Module):
    """Inception blocks, given as (name, channels) as in `BLOCKS`."""

    blocks: tuple[tuple[str, tuple[int, ...]], ...]
    factorised: bool
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: Train) -> jax.Array:
        """Maps `[B, T, H, W, C]` to the same grid with the last block's channels."""
        for name, channels in self.blocks:
            x = InceptionBlock(channels, self.factorised, self.dtype, name=name)(x, train)
        return x


class InceptionBlock(nn.Module):
    """Four branches side by side: 1x1x1; 1x1x1 and 3x3x3, twice; a 3x3x3 max-pool and 1x1x1 (Szegedy et al., 2015)."""

    channels: tuple[int, ...]
    factorised: bool
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: Train) -> jax.Array:
        """Maps `[B, T, H, W, C]` to `[B, T, H, W, C']`."""
        shared = (self.factorised, self.dtype)
        b0, reduce1, b1, reduce2, b2, b3 = self.channels
        branches = [_unit(b0, 1, 1, *shared, name="branch0")(x, train)]
        for number, (reduced, features) in ((1, (reduce1, b1)), (2, (reduce2, b2))):
            y = _unit(reduced, 1, 1, *shared, name=f"branch{number}_reduce")(x, train)
            branches.append(_unit(features, 3, 1, *shared, name=f"branch{number}")(y, train))
        pooled = max_pool(x, (3, 3, 3), (1, 1, 1))
        branches.append(_unit(b3, 1, 1, *shared, name="branch3")(pooled, train))
        return jnp.concatenate(branches, axis=-1)
