"""How alike two images are: PSNR and SSIM."""

import jax
import jax.numpy as jnp
import numpy as np

from hcml_jax.ops.check import check_equal, checked

LEAST_ERROR = 1e-10  # mean squared; equal images have a PSNR of 100 dB
WINDOW, DEVIATION = 11, 1.5


def psnr(images, target) -> jax.Array:
    """Peak signal-to-noise ratio of images in [0, 1]. A measure, not a loss.

    Args:
      images: [..., H, W, C], floating.
      target: the same shape.

    Returns:
      float32 [...], in dB, at most 100.

    Raises:
      ValueError: the shapes do not fit each other.
    """
    images, target = _pair(images, target)
    error = jnp.square(images - target).mean((-3, -2, -1))
    return -10 * jnp.log10(jnp.maximum(error, LEAST_ERROR))


def ssim(images, target) -> jax.Array:
    """Structural similarity of images in [0, 1] (Wang et al., 2004), with their Gaussian window of 11 pixels.

    Args:
      images: [..., H, W, C], floating; H and W at least 11.
      target: the same shape.

    Returns:
      float32 [...], 1 where they are equal; the mean over channels and over the places where the window fits.

    Raises:
      ValueError: the shapes do not fit each other, or the images are too small.
    """
    images, target = _pair(images, target)
    if min(images.shape[-3:-1]) < WINDOW:
        raise ValueError(f"images: expected {WINDOW} x {WINDOW} pixels or more, found {list(images.shape[-3:-1])}")
    mean, other = _blur(images), _blur(target)
    variance = _blur(images**2) - mean**2
    other_variance = _blur(target**2) - other**2
    covariance = _blur(images * target) - mean * other
    small, smaller = 0.01**2, 0.03**2
    alike = (2 * mean * other + small) * (2 * covariance + smaller)
    alike /= (mean**2 + other**2 + small) * (variance + other_variance + smaller)
    return alike.mean((-3, -2, -1))


def _pair(images, target) -> tuple[jax.Array, jax.Array]:
    images = checked("images", images, "... H W C")
    target = checked("target", target, "... H W C")
    check_equal("target: the shape of images", target.shape, images.shape)
    return images.astype(jnp.float32), target.astype(jnp.float32)


def _blur(images: jax.Array) -> jax.Array:
    """Gaussian means where the window fits."""
    rows, columns = map(_windows, images.shape[-3:-1])
    return jnp.einsum("Hh,Ww,...hwc->...HWc", rows, columns, images, precision=jax.lax.Precision.HIGHEST)


def _windows(size: int) -> np.ndarray:
    """Weights of each place of the window along an axis: float32 `[size - 10, size]`."""
    distances = np.arange(size) - np.arange(size - WINDOW + 1)[:, None] - WINDOW // 2
    weights = np.exp(-0.5 * (distances / DEVIATION) ** 2) * (abs(distances) <= WINDOW // 2)
    return (weights / weights.sum(1, keepdims=True)).astype(np.float32)
