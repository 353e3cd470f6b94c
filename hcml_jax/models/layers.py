"""Layers every backbone shares: convolutions lowered for speed, batch normalisation that can be frozen by path."""

import dataclasses
from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

Path = tuple[str, ...]

# He et al. (2015), scaled by the outputs as in the ResNet papers.
kernel_init = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


@dataclasses.dataclass(frozen=True)
class TrainMode:
    """How batch normalisation behaves in a training step.

    Attributes:
      trainable: module path -> whether its statistics come from the batch and move. Elsewhere the layer is frozen:
        it normalises with its running statistics and leaves them untouched.
      batch_norm_group: clips over which statistics are taken; 0 takes the whole (global) batch.
    """

    trainable: Callable[[Path], bool] = lambda path: True
    batch_norm_group: int = 0


Train = bool | TrainMode


class BatchNorm(nn.Module):
    """Batch normalisation over all axes but the last, frozen where `train` says so (Ioffe and Szegedy, 2015).

    Statistics, scale and bias are float32 whatever the input; the output has the input's dtype.
    """

    momentum: float = 0.9
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x: jax.Array, train: Train) -> jax.Array:
        """Maps `[B, ..., C]` to the same shape.

        Raises:
          ValueError: if the batch does not divide into the groups of `train`.
        """
        channels = x.shape[-1]
        scale = self.param("scale", nn.initializers.ones, (channels,), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (channels,), jnp.float32)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, (channels,), jnp.float32)
        running_var = self.variable("batch_stats", "var", jnp.ones, (channels,), jnp.float32)

        mode = TrainMode() if train is True else train
        if not mode or not mode.trainable(self.path):
            gain = scale * jax.lax.rsqrt(running_var.value + self.epsilon)
            shift = bias - running_mean.value * gain
            return (x.astype(jnp.float32) * gain + shift).astype(x.dtype)

        clips = x.astype(jnp.float32).reshape(x.shape[0], -1, channels)
        groups = _num_groups(x.shape[0], mode.batch_norm_group)

        def mean_of_groups(y):
            # Of each clip first: devices whose clips share a group exchange [B, C] numbers, and no pixels.
            return y.mean(1).reshape(groups, -1, channels).mean(1)

        mean = mean_of_groups(clips)
        # E[x^2] - E[x]^2: on CPU its gradient runs 16 times faster than that of E[(x - E[x])^2].
        var = jnp.maximum(mean_of_groups(jnp.square(clips)) - jnp.square(mean), 0.0)
        if not self.is_initializing():
            keep = self.momentum
            running_mean.value = keep * running_mean.value + (1 - keep) * mean.mean(0)
            running_var.value = keep * running_var.value + (1 - keep) * var.mean(0)
        gain = scale * jax.lax.rsqrt(var + self.epsilon)
        shift = bias - mean * gain
        gain, shift = (jnp.repeat(v, len(clips) // groups, axis=0)[:, None] for v in (gain, shift))
        return (clips * gain + shift).reshape(x.shape).astype(x.dtype)


def _num_groups(batch: int, group: int) -> int:
    if group == 0:
        return 1
    if batch % group:
        raise ValueError(
            f"a batch of {batch} clips does not divide into batch-norm groups of {group} clips"
        )
    return batch // group


class Conv(nn.Module):
    """A 3-D convolution without bias on `[B, T, H, W, C]`, padded by half its kernel, lowered to what runs fastest.

    The kernel is always stored as `[kt, kh, kw, C, features]`. 1x1x1 runs as a matrix product and 1 x k x k as a
    2-D convolution over all frames, because XLA's 3-D path is several times slower there.
    """

    features: int
    kernel: tuple[int, int, int] = (1, 1, 1)
    strides: tuple[int, int, int] = (1, 1, 1)
    kernel_init: Callable = kernel_init
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `[B, T, H, W, C]` to `[B, ceil(T / st), ceil(H / sh), ceil(W / sw), features]`."""
        kernel = self.param(
            "kernel", self.kernel_init, (*self.kernel, x.shape[-1], self.features), jnp.float32
        )
        return convolve(x.astype(self.dtype), kernel.astype(self.dtype), self.strides)


def convolve(x: jax.Array, kernel: jax.Array, strides: Sequence[int]) -> jax.Array:
    """Convolves `[B, T, H, W, C]` with `[kt, kh, kw, C, D]` (odd kernels, padding k // 2)."""
    kt, kh, kw = kernel.shape[:3]
    st, sh, sw = strides
    if (kt, kh, kw) == (1, 1, 1):
        return jnp.einsum("bthwc,cd->bthwd", x[:, ::st, ::sh, ::sw], kernel[0, 0, 0])
    if kt == 1:
        frames = x[:, ::st]
        flat = frames.reshape(-1, *frames.shape[2:])
        y = _convolve_nd(flat, kernel[0], (sh, sw))
        return y.reshape(*frames.shape[:2], *y.shape[1:])
    return _convolve_nd(x, kernel, strides)


def _convolve_nd(x: jax.Array, kernel: jax.Array, strides: Sequence[int]) -> jax.Array:
    spatial = "THW"[-len(strides) :]
    layout = (f"N{spatial}C", f"{spatial}IO", f"N{spatial}C")
    padding = [(k // 2, k // 2) for k in kernel.shape[:-2]]
    return jax.lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=layout)


class ConvNorm(nn.Module):
    """Convolution and batch normalisation; ReLU unless `relu` is False."""

    features: int
    kernel: tuple[int, int, int] = (1, 1, 1)
    strides: tuple[int, int, int] = (1, 1, 1)
    relu: bool = True
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: Train) -> jax.Array:
        """Maps `[B, T, H, W, C]` to `[B, T', H', W', features]`."""
        x = Conv(self.features, self.kernel, self.strides, dtype=self.dtype, name="conv")(x)
        x = BatchNorm(name="norm")(x, train)
        return nn.relu(x) if self.relu else x


def max_pool_frames(x: jax.Array) -> jax.Array:
    """3x3 max-pool of stride 2 on each frame of `[B, T, H, W, C]`, padded by one."""
    window, strides = (1, 1, 3, 3, 1), (1, 1, 2, 2, 1)
    padding = ((0, 0), (0, 0), (1, 1), (1, 1), (0, 0))
    # A Python number: XLA knows the pool as a maximum, which has a gradient, only by a literal -inf.
    return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, window, strides, padding)
