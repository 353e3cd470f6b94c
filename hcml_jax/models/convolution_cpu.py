"""Convolutions for XLA's CPU backend, whose own 3-D ones, and gradients of large 2-D ones, are several times slower.

Time is unrolled into 2-D convolutions; the gradients of those are matrix products over patches, made for a few frames
at a time. docs/performance.md has the measurements behind these choices. Gradients are taken in reverse mode alone.
"""

import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

Pads = Sequence[tuple[int, int]]

PATCH_BYTES = 2**22  # of patches made at a time, for at least two frames where they divide
BLOCK, BLOCKS = 32, 8  # least channels of groups convolved together; most blocks of such groups
FEW = 32  # most channels at which copying the input costs less than copying the output
SHORT = 4  # most frames at which joining the kernel's taps wastes more at the ends than it saves
# Least side of maps, in cells, at which gradients are computed from patches: for the input, and for the kernel.
LARGE_INPUT, LARGE_KERNEL = 28, 12
MUCH = 2**25  # multiply-adds, from which on the latter are worth their longer compilation


def convolve_groups(x: jax.Array, kernel: jax.Array, groups: int, convolve: Callable) -> jax.Array:
    """Convolves groups of channels that do not mix, several at a time with zeros between them.

    Args:
      x: `[B, T, H, W, C]`.
      kernel: `[kt, kh, kw, C / groups, D]`.
      groups: how many.
      convolve: convolves with a kernel without groups.
    """
    *window, channels, features = kernel.shape
    # At most BLOCKS blocks of groups: each is one more convolution to compile. (In a loop their gradients are slow.)
    most = max(BLOCK, x.shape[-1] // BLOCKS) // channels
    joined = max(n for n in range(1, groups + 1) if groups % n == 0 and n <= max(1, most))
    blocks = groups // joined
    apart = kernel.reshape(*window, channels, blocks, joined, features // groups)
    kernels = jnp.einsum("thwcbjd,jk->bthwkcjd", apart, jnp.eye(joined, dtype=kernel.dtype))
    kernels = kernels.reshape(blocks, *window, joined * channels, features // blocks)
    parts = jnp.split(x, blocks, axis=-1)
    return jnp.concatenate([convolve(*pair) for pair in zip(parts, kernels, strict=True)], axis=-1)


def convolve_over_time(x: jax.Array, kernel: jax.Array, strides: tuple[int, int, int], pads: Pads) -> jax.Array:
    """Convolves `[B, T, H, W, C]` with `[kt, kh, kw, C, D]`; see `convolution.convolve`."""
    kt, *window, channels, features = kernel.shape
    (before, after), *pads = pads
    frames, stride, spatial = x.shape[1], strides[0], tuple(strides[1:])
    length = (frames + before + after - kt) // stride + 1
    if kt * channels <= FEW:
        # The frames that a kernel sees, side by side as channels of one.
        x = jnp.pad(x, ((0, 0), (before, after), (0, 0), (0, 0), (0, 0)))
        stop = (length - 1) * stride + 1
        seen = [x[:, tap : tap + stop : stride] for tap in range(kt)]
        joined = jnp.moveaxis(kernel, 0, 2).reshape(*window, kt * channels, features)
        return convolve_frames(jnp.concatenate(seen, axis=-1), joined, spatial, tuple(pads))
    total = jnp.zeros((), x.dtype)
    for phase in range(stride):
        met = x[:, phase::stride]
        taps = [tap for tap in range(kt) if (tap - before - phase) % stride == 0]
        if not taps:
            continue
        moves = [(before + phase - tap) // stride for tap in taps]
        if met.shape[1] <= SHORT:
            for tap, move in zip(taps, moves, strict=True):
                kept = slice(max(0, -move), max(0, min(met.shape[1], length - move)))
                if kept.start < kept.stop:
                    y = convolve_frames(met[:, kept], kernel[tap], spatial, tuple(pads))
                    total += _move(y, move + kept.start, length)
            continue
        # What each frame adds to its neighbours, side by side as channels of one outcome.
        joined = jnp.stack([kernel[tap] for tap in taps], axis=3)
        joined = joined.reshape(*window, channels, len(taps) * features)
        y = convolve_frames(met, joined, spatial, tuple(pads))
        for part, move in zip(jnp.split(y, len(taps), axis=-1), moves, strict=True):
            total += _move(part, move, length)
    return total


def _move(x: jax.Array, offset: int, length: int) -> jax.Array:
    """Shift the frames of `[B, T, ...]` by `offset`; both ends are zero-padded or cropped to `length` frames."""
    around = [(0, 0, 0)] * x.ndim
    around[1] = (offset, length - x.shape[1] - offset, 0)
    return jax.lax.pad(x, jnp.zeros((), x.dtype), around)


def convolve_frames(
    x: jax.Array, kernel: jax.Array, strides: tuple[int, int], pads: tuple[tuple[int, int], ...]
) -> jax.Array:
    """Convolves each frame of `[B, T, H, W, C]` with `[kh, kw, C, D]`."""
    if kernel.shape[:2] == (1, 1) and not any(map(any, pads)):
        return x[:, :, :: strides[0], :: strides[1]] @ kernel[0, 0]
    y = _convolve(x.reshape(-1, *x.shape[2:]), kernel, strides, pads)
    return y.reshape(*x.shape[:2], *y.shape[1:])


def _xla(x, kernel, strides, pads):
    """Convolves `[N, H, W, C]` with `[kh, kw, C, D]`."""
    layout = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x, kernel, strides, pads, dimension_numbers=layout)


_convolve = jax.custom_vjp(_xla, nondiff_argnums=(2, 3))


def _forward(x, kernel, strides, pads):
    return _convolve(x, kernel, strides, pads), (x, kernel)


def _backward(strides, pads, saved, gradient):
    x, kernel = saved
    of_frames = jax.vjp(lambda x: _xla(x, kernel, strides, pads), x)[1]
    of_kernel = jax.vjp(lambda kernel: _xla(x, kernel, strides, pads), kernel)[1]
    channels, features = kernel.shape[2:]
    # Several devices each hold some of the frames: processing these in parts would move them between devices.
    cells = min(gradient.shape[1:3]) if jax.device_count() == 1 else 0
    if cells >= LARGE_INPUT and features > channels and x.dtype != jnp.bfloat16:
        dx = _spread_patches(gradient, kernel, x.shape, strides, pads)
    else:
        (dx,) = of_frames(gradient)
    if cells < LARGE_KERNEL or math.prod(gradient.shape[:3]) * kernel.size < MUCH:
        (dk,) = of_kernel(gradient)
    elif features < channels and strides == (1, 1):
        # Patches of the gradient are narrower; a convolution with the input gives the same kernel, turned about.
        window = kernel.shape[:2]
        turned = tuple((k - 1 - a, k - 1 - b) for k, (a, b) in zip(window, pads, strict=True))
        dk = _correlate_patches(gradient, x, window, strides, turned)
        dk = jnp.flip(dk, (0, 1)).swapaxes(2, 3)
    else:
        dk = _correlate_patches(x, gradient, kernel.shape[:2], strides, pads)
    return dx, dk


_convolve.defvjp(_forward, _backward)


def _correlate_patches(x, y, window, strides, pads):
    """Correlate `y` `[N, H', W', D]` with the patches of `x` `[N, H, W, C]` at its cells: a kernel `[kh, kw, C, D]`."""
    channels, features = x.shape[-1], y.shape[-1]
    width = math.prod(window) * channels
    sums = _sums(x)

    def add(total, frames):
        x, y = frames
        patches = _patches(x, window, strides, pads, y.shape[1:3]).reshape(-1, width)
        contract = (((0,), (0,)), ((), ()))
        # The narrower array first: the other order is up to four times as slow.
        products = jax.lax.dot_general(y.reshape(-1, features), patches, contract, preferred_element_type=sums)
        return total + products, None

    total, _ = jax.lax.scan(add, jnp.zeros((features, width), sums), _parts((x, y), width))
    return jnp.moveaxis(total.reshape(features, *window, channels), 0, -1).astype(x.dtype)


def _spread_patches(y, kernel, shape, strides, pads):
    """Add each cell of `y` `[N, H', W', D]`, times the kernel, to its patch of an array of this shape."""
    kh, kw, channels, features = kernel.shape
    turned = kernel.reshape(-1, features).T
    size = [n + sum(pad) for n, pad in zip(shape[1:3], pads, strict=True)]

    def spread(y):
        patches = jnp.matmul(y, turned, preferred_element_type=_sums(y))
        patches = patches.reshape(*y.shape[:3], kh, kw, channels)
        total = jnp.zeros((len(y), *size, channels), _sums(y))
        for i in range(kh):
            for j in range(kw):
                total += _place(patches[..., i, j, :], (i, j), strides, size)
        (top, _), (left, _) = pads
        return total[:, top : top + shape[1], left : left + shape[2]].astype(y.dtype)

    parts = _parts((y,), kh * kw * channels)
    _, frames = jax.lax.scan(lambda _, part: (None, spread(*part)), None, parts)
    return frames.reshape(shape)


def _sums(x):
    """The dtype in which products are summed."""
    return x.dtype if x.dtype == jnp.float64 else jnp.float32


def _patches(x, window, strides, pads, grid):
    """The patch of every cell: `[N, H, W, C]` to `[N, H', W', kh kw C]`."""
    x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    (kh, kw), (sh, sw) = window, strides
    bottom, right = ((n - 1) * s + 1 for n, s in zip(grid, strides, strict=True))
    # Along rows, then along columns: shorter to compile than all cells of the window at once, and no slower.
    x = jnp.concatenate([x[:, :, j : j + right : sw] for j in range(kw)], axis=-1)
    return jnp.concatenate([x[:, i : i + bottom : sh] for i in range(kh)], axis=-1)


def _place(x, start, strides, size):
    """Cells of `[N, H', W', C]` at every stride from `start` on, zeros elsewhere up to `size`."""
    spread = [
        (begin, n - begin - ((cells - 1) * s + 1), s - 1)
        for begin, n, cells, s in zip(start, size, x.shape[1:3], strides, strict=True)
    ]
    return jax.lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), *spread, (0, 0, 0)))


def _parts(arrays, width):
    """Splits the frames of arrays by the bytes of patches, `width` numbers at each cell of the last."""
    frames, cells = len(arrays[-1]), math.prod(arrays[-1].shape[1:3])
    # One frame at a time has been slower than two.
    most = max(2, PATCH_BYTES // (cells * width * arrays[-1].dtype.itemsize))
    size = max(n for n in range(1, frames + 1) if frames % n == 0 and n <= most)
    return tuple(a.reshape(-1, size, *a.shape[1:]) for a in arrays)
