"""The periodic shuffle: channels become pixels."""

import jax

from hcml_jax.ops.check import checked


def periodic_shuffle(x, scale: int) -> jax.Array:
    """out[y, x, c] = in[y // s, x // s, C s (y % s) + C (x % s) + c] (CGM-Net eq. 5).

    PyTorch's `pixel_shuffle` has its channels in another order, s s c + s (y % s) + (x % s).

    Args:
      x: [..., H, W, s s C].
      scale: s, 1 or more.

    Returns:
      [..., H s, W s, C].

    Raises:
      ValueError: the channels do not divide by s s.
    """
    x = checked("x", x, "... H W C")
    *lead, height, width, channels = x.shape
    if scale < 1 or channels % scale**2:
        raise ValueError(f"scale: {channels} channels do not divide into {scale} x {scale} pixels")
    x = x.reshape(*lead, height, width, scale, scale, channels // scale**2).swapaxes(-4, -3)
    return x.reshape(*lead, height * scale, width * scale, channels // scale**2)
