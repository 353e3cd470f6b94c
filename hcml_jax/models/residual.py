"""Residual blocks, and stages of them, of the ResNet and SlowFast families."""

from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from hcml_jax.models.layers import ConvNorm, FactorisedConvNorm, Train

ConvKind = Literal["2d", "3d", "2plus1d"]
Strides = tuple[int, int, int]


class Stage(nn.Module):
    """Blocks at one resolution; the first one strides.

    Attributes:
      temporal, groups, zero_scale: see `Bottleneck`.
      conv, padded_shortcut: see `ResNet`.
      long_blocks: how many of the first blocks are bottlenecks whose first convolution is 3x1x1 (SlowFast).
    """

    blocks: int
    bottleneck: bool
    features: int
    strides: Strides
    conv: ConvKind = "2d"
    temporal: bool = False
    groups: int = 1
    padded_shortcut: bool = False
    long_blocks: int = 0
    zero_scale: bool = False
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: Train) -> jax.Array:
        """Maps `[B, T, H, W, C]` to `[B, T', H', W', C']`."""
        for number in range(self.blocks):
            x = self._block(number)(x, train)
        return x

    def _block(self, number: int) -> nn.Module:
        strides = self.strides if number == 0 else (1, 1, 1)
        shared = {
            "conv": self.conv,
            "padded_shortcut": self.padded_shortcut,
            "dtype": self.dtype,
            "name": f"block{number}",
        }
        if not (self.bottleneck or self.temporal):
            return BasicBlock(self.features, strides, **shared)
        return Bottleneck(
            self.features,
            strides,
            temporal=self.temporal,
            groups=self.groups,
            first_in_time=3 if number < self.long_blocks else 1,
            zero_scale=self.zero_scale,
            **shared,
        )


class BasicBlock(nn.Module):
    """Two 3x3 convolutions of kind `conv` with a shortcut (He et al., 2016)."""

    features: int
    strides: Strides = (1, 1, 1)
    conv: ConvKind = "2d"
    padded_shortcut: bool = False
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: Train) -> jax.Array:
        """Maps `[B, T, H, W, C]` to `[B, T', H', W', features]`."""
        # Both convolutions of a block have the first one's channels between, as published weights do.
        middle = _middle(x.shape[-1], self.features)
        shared = {"kind": self.conv, "features": self.features, "middle": middle, "dtype": self.dtype}
        y = _convolution(strides=self.strides, name="conv1", **shared)(x, train)
        y = _convolution(strides=(1, 1, 1), relu=False, name="conv2", **shared)(y, train)
        return nn.relu(y + _shortcut(x, y, self.strides, self.padded_shortcut, train, self.dtype))


class Bottleneck(nn.Module):
    """1x1x1, 3x3 and 1x1x1 convolutions with a shortcut (He et al., 2016); strides sit on the 3x3.

    Attributes:
      features: channels of the first two; four times as many come out.
      temporal: a 3x1x1 convolution precedes the 3x3 and takes the stride in time (HCML, supplement Table 8).
      groups: of the 3x3; above 1 the block is ResNeXt's (Xie et al., 2017), and only twice the `features` come out.
      first_in_time: length in time of the first convolution.
      zero_scale: whether the last normalisation starts with scale zero, the block as its shortcut.
    """

    features: int
    strides: Strides = (1, 1, 1)
    conv: ConvKind = "2d"
    padded_shortcut: bool = False
    dtype: jnp.dtype = jnp.float32
    temporal: bool = False
    groups: int = 1
    first_in_time: int = 1
    zero_scale: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, train: Train) -> jax.Array:
        """Maps `[B, T, H, W, C]` to `[B, T', H', W', C']`."""
        dtype, strides = self.dtype, self.strides
        kernel = (self.first_in_time, 1, 1)
        y = ConvNorm(self.features, kernel, dtype=dtype, name="conv1")(x, train)
        if self.temporal:
            in_time, strides = (strides[0], 1, 1), (1, *strides[1:])
            y = ConvNorm(self.features, (3, 1, 1), in_time, dtype=dtype, name="temporal")(y, train)
        middle = _middle(self.features, self.features)
        y = _convolution(self.conv, self.features, strides, middle, groups=self.groups, dtype=dtype, name="conv2")(
            y, train
        )
        outcome = self.features * (2 if self.groups > 1 else 4)
        scale = nn.initializers.zeros if self.zero_scale else nn.initializers.ones
        y = ConvNorm(outcome, relu=False, scale_init=scale, dtype=dtype, name="conv3")(y, train)
        return nn.relu(y + _shortcut(x, y, self.strides, self.padded_shortcut, train, dtype))


def _middle(channels: int, features: int) -> int:
    """Channels between 1x3x3 and 3x1x1 with which they have the parameters of 3x3x3 (Tran et al., 2018)."""
    return channels * features * 27 // (channels * 9 + 3 * features)


def _convolution(kind: ConvKind, features, strides, middle, *, relu=True, groups=1, dtype, name):
    if kind == "2plus1d":
        strides = (strides[0], strides[1])
        return FactorisedConvNorm(features, (3, 3), strides, middle, relu, dtype=dtype, name=name)
    kernel = (1 if kind == "2d" else 3, 3, 3)
    return ConvNorm(features, kernel, strides, relu, groups=groups, dtype=dtype, name=name)


def _shortcut(x, y, strides: Strides, padded: bool, train: Train, dtype) -> jax.Array:
    """Called inside a compact block: the identity or, where the shape changes, a projection or zeros for channels."""
    if x.shape == y.shape:
        return x
    if padded:
        st, sh, sw = strides
        more = y.shape[-1] - x.shape[-1]
        return jnp.pad(x[:, ::st, ::sh, ::sw], ((0, 0),) * 4 + ((0, more),))
    return ConvNorm(y.shape[-1], (1, 1, 1), strides, relu=False, dtype=dtype, name="shortcut")(x, train)
