"""Cost volumes between adjacent frames of features.

Two forms of the same function. `cost_volume_by_shifts` shifts the whole grid once for each
displacement and is the definition. `cost_volume` splits the grid into its s x s sub-grids of
positions that are s apart: displacements are multiples of s, so sub-grids never mix, and within
one the displacements are -r..r. There, for each dy, one product of every row with a row of the
next frame holds all dx at once on its diagonals. On a GPU shifts are faster, in a sixth of the memory
(docs/performance.md); motion blocks take the faster form.
"""

import functools

import jax
import jax.numpy as jnp

from hcml_jax.ops.check import checked
from hcml_jax.ops.normalise import unit_vectors


def cost_volume(features, *, max_displacement: int, stride: int) -> jax.Array:
    """Cosine between each position of a frame and its surroundings in the next frame.

    out[b, t, y, x, m] = cos(features[b, t, y, x], features[b, t+1, y+dy, x+dx]), where the last
    frame is paired with itself. Displacements dy, dx are the multiples of `stride` up to
    `max_displacement`; m runs over dy first, then dx, both from negative to positive. Positions
    outside the image and zero vectors give 0. (HCML, section 3.1 and supplement 3.2.)

    Args:
      features: [B, T, H, W, C], float32 or bfloat16.
      max_displacement: d, in grid positions, at least 0.
      stride: s, in grid positions, at least 1.

    Returns:
      [B, T, H, W, M], M = (2 floor(d/s) + 1)^2, in [-1, 1], of the dtype of `features`; norms and
      sums are taken in float32.

    Raises:
      ValueError: `features` is not a floating [B, T, H, W, C] array, or d < 0, or s < 1.
    """
    features, radius = _checked(features, max_displacement, stride)
    frames = unit_vectors(features)
    volume = _correlate(_sub_grids(frames, stride), _sub_grids(_next_frames(frames), stride), radius)
    return _join_sub_grids(volume, stride, features.shape).astype(features.dtype)


def cost_volume_by_shifts(features, *, max_displacement: int, stride: int) -> jax.Array:
    """See `cost_volume`: one shift of the grid for each displacement."""
    features, radius = _checked(features, max_displacement, stride)
    frames = unit_vectors(features)
    height, width = frames.shape[2:4]
    margin = radius * stride
    padded = jnp.pad(_next_frames(frames), [(0, 0), (0, 0), (margin,) * 2, (margin,) * 2, (0, 0)])
    starts = range(0, 2 * margin + 1, stride)
    shifted = (padded[:, :, y : y + height, x : x + width] for y in starts for x in starts)
    volume = jnp.stack([jnp.sum(frames * moved, axis=-1) for moved in shifted], axis=-1)
    return volume.astype(features.dtype)


def _checked(features, max_displacement, stride):
    """Checked features, and the radius r of the displacements -r..r in units of the stride."""
    features = checked("features", features, "B T H W C")
    if max_displacement < 0 or stride < 1:
        raise ValueError(f"expected max_displacement >= 0 and stride >= 1, found {max_displacement=}, {stride=}")
    return features, max_displacement // stride


def _next_frames(frames):
    return jnp.concatenate([frames[:, 1:], frames[:, -1:]], axis=1)


def _sub_grids(frames, s):
    """[B, T, H, W, C] -> [B*T*s*s, ceil(H/s), ceil(W/s), C]; what is added to fit is zero."""
    B, T, H, W, C = frames.shape
    frames = jnp.pad(frames, [(0, 0), (0, 0), (0, -H % s), (0, -W % s), (0, 0)])
    h, w = frames.shape[2] // s, frames.shape[3] // s
    frames = frames.reshape(B * T, h, s, w, s, C).transpose(0, 2, 4, 1, 3, 5)
    return frames.reshape(B * T * s * s, h, w, C)


def _join_sub_grids(volume, s, shape):
    """[B*T*s*s, h, w, M] -> [B, T, H, W, M]: undoes `_sub_grids` for features of this shape."""
    B, T, H, W, _ = shape
    _, h, w, M = volume.shape
    volume = volume.reshape(B * T, s, s, h, w, M).transpose(0, 3, 1, 4, 2, 5)
    return volume.reshape(B, T, h * s, w * s, M)[:, :, :H, :W]


def _pad(grids, radius):
    return jnp.pad(grids, [(0, 0), (radius,) * 2, (radius,) * 2, (0, 0)])


# The gradient is written out as a sum of shifted products, which XLA fuses into a few loops: on CPU
# 1.9 times as fast at [16, 8, 24, 24, 16] as what jax derives from the row products, and about the
# same on grids of 28 and 56.
@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _correlate(first, second, radius):
    """Inner products of [N, h, w, C] and its shifts by -r..r in y and x: [N, h, w, (2r+1)^2]."""
    height = first.shape[1]
    second = _pad(second, radius)
    rows = []
    for y in range(2 * radius + 1):
        moved = second[:, y : y + height]
        products = jnp.einsum("nhxc,nhvc->nhxv", first, moved, precision=jax.lax.Precision.HIGHEST)
        rows.append(_diagonals(products))
    return jnp.concatenate(rows, axis=-1)


def _diagonals(products):
    """products[..., x, x + k] as [..., x, k], for products [..., w, w + 2r] and k = 0..2r.

    One more element to a row makes rows of the flattened products start on the diagonal.
    """
    *lead, w, v = products.shape
    flat = products.reshape(*lead, w * v)
    flat = jnp.pad(flat, [(0, 0)] * len(lead) + [(0, w)])
    return flat.reshape(*lead, w, v + 1)[..., : v - w + 1]


def _correlate_forward(first, second, radius):
    return _correlate(first, second, radius), (first, second)


def _correlate_backward(radius, inputs, gradient):
    first, second = inputs
    height, width = first.shape[1:3]
    first, second, padded = (_pad(x, radius) for x in (*inputs, gradient))
    size = 2 * radius + 1

    def window(grids, y, x):
        return grids[:, y : y + height, x : x + width]

    to_first, to_second = 0.0, 0.0
    for m in range(size * size):
        y, x = divmod(m, size)
        back = (2 * radius - y, 2 * radius - x)
        channel = slice(m, m + 1)
        to_first += gradient[..., channel] * window(second, y, x)
        to_second += window(padded[..., channel], *back) * window(first, *back)
    return to_first, to_second


_correlate.defvjp(_correlate_forward, _correlate_backward)
