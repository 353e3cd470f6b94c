"""Pools over time and space."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from hcml_jax.models.convolution import Padding, has_cpu_forms, paddings
from hcml_jax.models.layers import at_least_float32


def max_pool(
    x: jax.Array, window: tuple[int, int, int], strides: tuple[int, int, int], padding: Padding = "half"
) -> jax.Array:
    """Max-pool of `[B, T, H, W, C]`; padding never wins, and among equal cells the first gets the gradient."""
    pads = paddings(x.shape[1:4], window, strides, padding)
    if has_cpu_forms():
        # One axis after another, the last one first, so that the first of equals is the first in memory.
        for axis in (3, 2, 1):
            n = axis - 1
            if window[n] > 1 or strides[n] > 1:
                x = _max_along(x, axis, window[n], strides[n], pads[n])
        return x
    return nn.max_pool(x, window, strides, pads)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3, 4))
def _max_along(x, axis, length, stride, pad):
    """Max-pool along one axis: XLA's own on CPU, and above all its gradient, is several times slower."""
    return functools.reduce(jnp.maximum, _shifts(x, axis, length, stride, pad))


def _forward(x, axis, length, stride, pad):
    best, *others = _shifts(x, axis, length, stride, pad)
    first = jnp.zeros(best.shape, jnp.int8)
    for n, other in enumerate(others, start=1):
        first = jnp.where(other > best, jnp.int8(n), first)
        best = jnp.maximum(best, other)
    return best, (first, x.shape[axis])


def _backward(axis, length, stride, pad, saved, gradient):
    first, size = saved
    stop = (gradient.shape[axis] - 1) * stride + 1
    total = jnp.zeros((), gradient.dtype)
    for n in range(length):
        # The place of the window's n-th cell, counted without padding; what lies outside is cut off.
        low = n - pad[0]
        around = [(0, 0, 0)] * gradient.ndim
        around[axis] = (low, size - stop - low, stride - 1)
        won = jnp.where(first == n, gradient, jnp.zeros((), gradient.dtype))
        total += jax.lax.pad(won, jnp.zeros((), gradient.dtype), around)
    return (total,)


_max_along.defvjp(_forward, _backward)


def _shifts(x, axis, length, stride, pad):
    """The first, second, ... cell of every window along an axis, -inf outside."""
    around = [(0, 0, 0)] * x.ndim
    around[axis] = (*pad, 0)
    x = jax.lax.pad(x, jnp.asarray(-jnp.inf, x.dtype), around)
    count = (x.shape[axis] - length) // stride
    return [jax.lax.slice_in_dim(x, n, n + count * stride + 1, stride, axis) for n in range(length)]


def mean_pool(x: jax.Array, window: tuple[int, int, int]) -> jax.Array:
    """The mean over all positions of a sliding window, which shrinks to the map; `[B, T, H, W, C]` to `[B, C]`.

    Where the window is smaller than the map, cells at the map's borders weigh less than those inside, as in networks
    whose classifier slides over the map before its scores are averaged.
    """
    x = at_least_float32(x)
    for axis, (size, length) in enumerate(zip(x.shape[1:4], window, strict=True), start=1):
        inside = min(length, size)
        places = size - inside + 1
        weights = np.convolve(np.ones(places), np.ones(inside)) / (places * inside)
        shape = [1] * x.ndim
        shape[axis] = size
        x = (x * jnp.asarray(weights.reshape(shape), x.dtype)).sum(axis, keepdims=True)
    return x.reshape(x.shape[0], -1)
