"""PSNR and SSIM against scikit-image."""

import jax.numpy as jnp
import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from hcml_jax.ops import psnr, ssim


@pytest.fixture
def pair():
    rng = np.random.default_rng(0)
    target = rng.random((2, 3, 24, 17, 3))
    return (target + rng.normal(size=target.shape) * 0.1).clip(0, 1), target


@pytest.mark.parametrize(("dtype", "rtol"), [(np.float32, 1e-5), (jnp.bfloat16, 2e-2)])
def test_both_are_scikit_images(pair, dtype, rtol):
    images, target = (jnp.asarray(x, dtype) for x in pair)
    options = {"data_range": 1, "gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    noise, alike = psnr(images, target), ssim(images, target)
    assert noise.shape == alike.shape == (2, 3) and noise.dtype == alike.dtype == jnp.float32
    for place in np.ndindex(2, 3):
        one, other = (x[place] for x in pair)
        np.testing.assert_allclose(noise[place], peak_signal_noise_ratio(other, one, data_range=1), rtol=rtol)
        expected = structural_similarity(one, other, channel_axis=-1, **options)
        np.testing.assert_allclose(alike[place], expected, rtol=rtol)


def test_equal_images(pair):
    np.testing.assert_allclose(ssim(pair[0], pair[0]), 1, rtol=1e-5)
    np.testing.assert_allclose(psnr(pair[0], pair[0]), 100, rtol=1e-5)


def test_what_does_not_fit_is_named(pair):
    with pytest.raises(ValueError, match="11 x 11 pixels or more"):
        ssim(pair[0][..., :10, :], pair[1][..., :10, :])
    with pytest.raises(ValueError, match="the shape of images"):
        psnr(pair[0], pair[1][:1])
