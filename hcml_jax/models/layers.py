"""Layers every backbone shares: batch normalisation that can be frozen by path, convolution with it."""

import dataclasses
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from hcml_jax.models.convolution import Conv, Padding

Path = tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class TrainMode:
    """How batch normalisation behaves in a training step.

    Attributes:
      trainable: module path -> whether the layer uses the batch's statistics and updates its running statistics.
        Otherwise it is frozen: it normalises with its running statistics and leaves them unchanged.
      batch_norm_group: clips over which statistics are taken; 0 takes the whole (global) batch.
    """

    trainable: Callable[[Path], bool] = lambda path: True
    batch_norm_group: int = 0


Train = bool | TrainMode


class BatchNorm(nn.Module):
    """Batch normalisation over all axes but the last, frozen where `train` says so (Ioffe and Szegedy, 2015).

    Statistics, scale and bias are float32 whatever the input; the output has the input's dtype.

    Attributes:
      momentum: what a step keeps of the running statistics (PyTorch's `momentum` is 1 minus this).
      epsilon: added to the variance.
      scale_init: of the scale; zeros make a residual branch start as nothing.
    """

    momentum: float = 0.9
    epsilon: float = 1e-5
    scale_init: Callable = nn.initializers.ones

    @nn.compact
    def __call__(self, x: jax.Array, train: Train) -> jax.Array:
        """Maps `[B, ..., C]` to the same shape.

        Raises:
          ValueError: if the batch does not divide into the groups of `train`.
        """
        channels = x.shape[-1]
        scale = self.param("scale", self.scale_init, (channels,), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (channels,), jnp.float32)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, (channels,), jnp.float32)
        running_var = self.variable("batch_stats", "var", jnp.ones, (channels,), jnp.float32)

        mode = TrainMode() if train is True else train
        if not mode or not mode.trainable(self.path):
            gain = scale * jax.lax.rsqrt(running_var.value + self.epsilon)
            shift = bias - running_mean.value * gain
            return (at_least_float32(x) * gain + shift).astype(x.dtype)

        clips = at_least_float32(x).reshape(x.shape[0], -1, channels)
        group = mode.batch_norm_group or len(x)
        if len(x) % group:
            raise ValueError(f"a batch of {len(x)} clips does not divide into batch-norm groups of {group} clips")

        def mean_of_groups(y):
            # Average each clip first: devices whose clips share a group then exchange [B, C] numbers, not pixels.
            return y.mean(1).reshape(-1, group, channels).mean(1)

        mean = mean_of_groups(clips)
        # E[x^2] - E[x]^2: on CPU its gradient runs 16 times faster than that of E[(x - E[x])^2].
        var = jnp.maximum(mean_of_groups(jnp.square(clips)) - jnp.square(mean), 0.0)
        if not self.is_initializing():
            keep = self.momentum
            running_mean.value = keep * running_mean.value + (1 - keep) * mean.mean(0)
            running_var.value = keep * running_var.value + (1 - keep) * var.mean(0)
        gain = scale * jax.lax.rsqrt(var + self.epsilon)
        shift = bias - mean * gain
        gain, shift = (jnp.repeat(v, group, axis=0)[:, None] for v in (gain, shift))
        return (clips * gain + shift).reshape(x.shape).astype(x.dtype)


def at_least_float32(x: jax.Array) -> jax.Array:
    """Cast to the dtype for sums: float32, but float64 stays."""
    return x if x.dtype == jnp.float64 else x.astype(jnp.float32)


class ConvNorm(nn.Module):
    """Convolution and batch normalisation; ReLU unless `relu` is False. Attributes: see `Conv` and `BatchNorm`."""

    features: int
    kernel: tuple[int, int, int] = (1, 1, 1)
    strides: tuple[int, int, int] = (1, 1, 1)
    relu: bool = True
    padding: Padding = "half"
    groups: int = 1
    momentum: float = 0.9
    epsilon: float = 1e-5
    scale_init: Callable = nn.initializers.ones
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: Train) -> jax.Array:
        """Maps `[B, T, H, W, C]` to `[B, T', H', W', features]`."""
        conv = Conv(self.features, self.kernel, self.strides, self.padding, self.groups, dtype=self.dtype, name="conv")
        x = conv(x)
        x = BatchNorm(self.momentum, self.epsilon, self.scale_init, name="norm")(x, train)
        return nn.relu(x) if self.relu else x


class FactorisedConvNorm(nn.Module):
    """A kxkxk convolution as a 1xkxk and a kx1x1 one, each normalised, with ReLU between (Tran et al., 2018).

    Attributes:
      features: channels of the outcome.
      kernel: k in time, k in space.
      strides: in time, in space.
      middle: channels between the two.
      relu: whether a ReLU follows.
      momentum, epsilon: of the normalisations.
    """

    features: int
    kernel: tuple[int, int]
    strides: tuple[int, int]
    middle: int
    relu: bool = True
    momentum: float = 0.9
    epsilon: float = 1e-5
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: Train) -> jax.Array:
        """Maps `[B, T, H, W, C]` to `[B, T', H', W', features]`."""
        (in_time, in_space), (st, s) = self.kernel, self.strides
        shared = {"momentum": self.momentum, "epsilon": self.epsilon, "dtype": self.dtype}
        kernel, strides = (1, in_space, in_space), (1, s, s)
        x = ConvNorm(self.middle, kernel, strides, name="spatial", **shared)(x, train)
        kernel, strides = (in_time, 1, 1), (st, 1, 1)
        temporal = ConvNorm(self.features, kernel, strides, self.relu, name="temporal", **shared)
        return temporal(x, train)
