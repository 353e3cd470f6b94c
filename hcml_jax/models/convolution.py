"""The convolution every backbone shares, lowered to what runs fastest."""

import contextlib
import functools
from collections.abc import Callable, Sequence
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from hcml_jax.models import convolution_cpu

# He et al. (2015), scaled by the outputs as in the ResNet papers.
kernel_init = nn.initializers.variance_scaling(2.0, "fan_out", "normal")

# "half": k // 2 on both sides (PyTorch's habit); "same": TensorFlow's, with ceil(n / stride) outputs, where more may be
# padded behind than before; "valid": nothing.
Padding = Literal["half", "same", "valid"]


# Part of jit's cache key: a function is traced separately inside and outside of `as_defined`.
_AS_DEFINED = jax.make_user_context(False)


def as_defined() -> contextlib.AbstractContextManager:
    """A context in which convolutions and pools are traced without their CPU forms, and cost volumes without their GPU
    form: what papers count, and what runs everywhere."""
    return _AS_DEFINED(True)


def has_cpu_forms() -> bool:
    """Whether convolutions and pools run in the forms made for CPUs."""
    return jax.default_backend() == "cpu" and not _AS_DEFINED.value


def has_gpu_forms() -> bool:
    """Whether motion blocks run in the form made for GPUs."""
    return jax.default_backend() == "gpu" and not _AS_DEFINED.value


class Conv(nn.Module):
    """A 3-D convolution on `[B, T, H, W, C]`; its kernel is always stored as `[kt, kh, kw, C / groups, features]`.

    Attributes:
      features: channels of the outcome.
      kernel, strides: in time, height, width.
      padding: see `Padding`.
      groups: channels are split into so many groups that do not mix.
      bias: whether a bias is added.
      kernel_init: of the kernel.
      dtype: what it computes in; the kernel is float32.
    """

    features: int
    kernel: tuple[int, int, int] = (1, 1, 1)
    strides: tuple[int, int, int] = (1, 1, 1)
    padding: Padding = "half"
    groups: int = 1
    bias: bool = False
    kernel_init: Callable = kernel_init
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `[B, T, H, W, C]` to `[B, T', H', W', features]`."""
        shape = (*self.kernel, x.shape[-1] // self.groups, self.features)
        kernel = self.param("kernel", self.kernel_init, shape, jnp.float32).astype(self.dtype)
        y = convolve(x.astype(self.dtype), kernel, self.strides, self.padding, self.groups)
        if not self.bias:
            return y
        bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
        return y + bias.astype(self.dtype)


def convolve(
    x: jax.Array, kernel: jax.Array, strides: Sequence[int], padding: Padding = "half", groups: int = 1
) -> jax.Array:
    """Convolves `[B, T, H, W, C]` with `[kt, kh, kw, C / groups, D]`.

    1x1x1 runs as a matrix product and 1 x k x k as a 2-D convolution over all frames, because XLA's 3-D path is
    several times slower there; on CPU, the rest too runs as 2-D convolutions. A strided 1x1x1 is a matrix product on
    CPU alone: XLA's compiler for GPUs has been seen to abort where it fused such a product with its strided slice (jax
    0.11.2, `triton_tiling_propagation.cc`).
    """
    kt, kh, kw = kernel.shape[:3]
    st, sh, sw = strides
    pads = paddings(x.shape[1:4], kernel.shape[:3], strides, padding)
    on_cpu = has_cpu_forms()
    if (kt, kh, kw, groups) == (1, 1, 1, 1) and (on_cpu or max(strides) == 1):
        return jnp.einsum("bthwc,cd->bthwd", x[:, ::st, ::sh, ::sw], kernel[0, 0, 0])
    if on_cpu and groups > 1:
        one = functools.partial(convolve, strides=strides, padding=padding)
        return convolution_cpu.convolve_groups(x, kernel, groups, one)
    if kt > 1:
        if on_cpu:
            return convolution_cpu.convolve_over_time(x, kernel, strides, pads)
        return _convolve_nd(x, kernel, strides, pads, groups)
    frames = x[:, ::st]
    if on_cpu:
        return convolution_cpu.convolve_frames(frames, kernel[0], (sh, sw), tuple(pads[1:]))
    y = _convolve_nd(frames.reshape(-1, *frames.shape[2:]), kernel[0], (sh, sw), pads[1:], groups)
    return y.reshape(*frames.shape[:2], *y.shape[1:])


def _convolve_nd(x, kernel, strides, pads, groups=1) -> jax.Array:
    spatial = "THW"[-len(strides) :]
    layout = (f"N{spatial}C", f"{spatial}IO", f"N{spatial}C")
    return jax.lax.conv_general_dilated(x, kernel, strides, pads, dimension_numbers=layout, feature_group_count=groups)


def paddings(
    sizes: Sequence[int], window: Sequence[int], strides: Sequence[int], padding: Padding
) -> list[tuple[int, int]]:
    """What is padded before and behind each axis of these sizes."""
    if padding == "half":
        return [(k // 2, k // 2) for k in window]
    return jax.lax.padtype_to_pads(sizes, window, strides, padding)
