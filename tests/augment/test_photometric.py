"""Photometric changes against PIL's and scikit-image's."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance
from skimage import color, filters

from hcml_jax.augment import (
    Photometric,
    PhotometricConfig,
    change_photometry,
    draw_photometric,
    gaussian_blur,
    grayscale,
    jitter_colours,
    turn_hue,
)
from hcml_jax.config import ConfigError

B, T, H, W = 3, 2, 10, 12
IN_ORDER = np.tile(np.arange(4), (B, 1))
ENHANCERS = ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color
jitter = jax.jit(jitter_colours)


@pytest.fixture
def clip():
    pixels = np.random.default_rng(0).integers(0, 256, (B, T, H, W, 3))
    return jnp.asarray(pixels, jnp.float32) / 255


def each_frame(clip, change):
    """`change(frame, number of the clip)` of every frame as float64 in [0, 1]."""
    return np.array([[change(np.asarray(frame, np.float64), b) for frame in one] for b, one in enumerate(clip)])


def by_pil(clip, enhancer, factors):
    def change(frame, b):
        image = Image.fromarray(np.round(255 * frame).astype(np.uint8))
        return np.asarray(enhancer(image).enhance(float(factors[b])), np.float64) / 255

    return each_frame(clip, change)


@pytest.mark.parametrize("operation", range(3))
def test_brightness_contrast_and_saturation_are_pils(clip, operation):
    drawn = np.float32([0.6, 1.0, 1.4])
    factors = np.ones((B, 3), np.float32)
    factors[:, operation] = drawn
    found = jitter(clip, factors, np.zeros(B, np.float32), IN_ORDER)
    # PIL cuts every number to 1/255, and rounds the gray it blends with.
    np.testing.assert_allclose(found, by_pil(clip, ENHANCERS[operation], drawn), atol=1.6 / 255)


def hue_by_skimage(clip, turns):
    def change(frame, b):
        hsv = color.rgb2hsv(frame)
        hsv[..., 0] = (hsv[..., 0] + turns[b]) % 1
        return color.hsv2rgb(hsv)

    return each_frame(clip, change)


def test_hue_is_scikit_images(clip):
    clip = clip.at[0, 0, 0].set(0.5).at[0, 0, 1].set(0).at[0, 0, 2].set(1)  # colours without a hue
    turns = np.float32([-0.3, 0.0, 0.5])
    np.testing.assert_allclose(jax.jit(turn_hue)(clip, turns), hue_by_skimage(clip, turns), atol=1e-5)


def test_grayscale_is_pils(clip):
    def change(frame, _):
        return np.asarray(Image.fromarray(np.round(255 * frame).astype(np.uint8)).convert("L"))[..., None] / 255

    np.testing.assert_allclose(grayscale(clip), each_frame(clip, change), atol=0.6 / 255)


def test_jitter_follows_its_order(clip):
    order = np.array([[3, 0, 1, 2], [2, 3, 1, 0], [1, 2, 0, 3]])
    factors = np.random.default_rng(1).uniform(0.6, 1.4, (B, 3)).astype(np.float32)
    turns = np.float32([0.1, -0.1, 0.05])
    expected = []
    for b in range(B):
        one = clip[b : b + 1]
        for operation in order[b]:
            if operation == 3:
                one = hue_by_skimage(one, turns[b:])
            else:
                one = by_pil(one, ENHANCERS[operation], factors[b:, operation])
        expected.append(one[0])
    np.testing.assert_allclose(jitter(clip, factors, turns, order), expected, atol=5 / 255)
    assert np.abs(jitter(clip, factors, turns, order) - jitter(clip, factors, turns, IN_ORDER)).max() > 0.02


def test_blur_is_scikit_images(clip):
    sigma = np.float32([0.0, 0.7, 2.0])

    def change(frame, b):
        return filters.gaussian(frame, sigma[b], mode="nearest", truncate=8 / max(sigma[b], 1e-3), channel_axis=-1)

    found = jax.jit(lambda *a: gaussian_blur(*a, largest=2.0))(clip, sigma)
    np.testing.assert_allclose(found[1:], each_frame(clip, change)[1:], atol=1e-5)
    np.testing.assert_allclose(found[0], clip[0], atol=1e-7)


def test_what_is_drawn_is_as_likely_and_as_strong_as_asked(key):
    config = PhotometricConfig()
    drawn = jax.jit(draw_photometric, static_argnums=(1, 2))(key, 4000, config)
    jittered = np.asarray((drawn.factors != 1).any(1))
    for found, share in ((jittered, 0.8), (drawn.gray, 0.2), (drawn.sigma > 0, 0.5)):
        assert np.mean(found) == pytest.approx(share, abs=0.03)
    factors, hue, sigma = drawn.factors[jittered], drawn.hue[jittered], drawn.sigma[drawn.sigma > 0]
    for values, (low, high) in ((factors, (0.6, 1.4)), (hue, (-0.1, 0.1)), (sigma, (0.1, 2.0))):
        assert low <= values.min() < low + 0.01 * (high - low) and high - 0.01 * (high - low) < values.max() <= high
    np.testing.assert_array_equal(drawn.hue[~jittered], 0)
    assert len(np.unique(np.asarray(drawn.order), axis=0)) == 24
    np.testing.assert_array_equal(np.sort(drawn.order, axis=1)[:5], np.tile(np.arange(4), (5, 1)))


def test_all_changes_follow_one_another_and_no_draw_changes_nothing(clip):
    config = PhotometricConfig()
    ones, none = np.ones((B, 3), np.float32), np.zeros(B, np.float32)
    still = Photometric(ones, none, IN_ORDER, none.astype(bool), none)
    np.testing.assert_allclose(change_photometry(clip, still, config), clip, atol=1e-6)
    gray = still._replace(factors=0.7 * ones, gray=np.array([True, False, True]), sigma=np.float32([1.0, 0.0, 0.0]))
    found = change_photometry(clip, gray, config)
    jittered = jitter(clip, gray.factors, none, IN_ORDER)
    np.testing.assert_allclose(found[1], jittered[1], atol=1e-6)
    np.testing.assert_allclose(found[2], np.broadcast_to(grayscale(jittered[2]), clip[2].shape), atol=1e-6)
    blurred = gaussian_blur(jnp.broadcast_to(grayscale(jittered), clip.shape), gray.sigma, largest=2.0)
    np.testing.assert_allclose(found[0], blurred[0], atol=1e-6)


def test_bfloat16_clips_are_changed_in_float32(clip, key):
    config = PhotometricConfig()
    drawn = draw_photometric(key, B, config)
    found = change_photometry(clip.astype(jnp.bfloat16), drawn, config)
    assert found.dtype == jnp.bfloat16
    expected = change_photometry(clip.astype(jnp.bfloat16).astype(jnp.float32), drawn, config)
    np.testing.assert_allclose(found.astype(np.float32), expected, atol=2**-8)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"blur": 1.5}, "blur must be between 0 and 1, not 1.5"),
        ({"hue": 0.6}, "hue must be between 0 and 0.5"),
        ({"sigma": (2.0, 1.0)}, r"sigma must be \(least, most\)"),
    ],
)
def test_fields_out_of_range_are_refused(fields, message):
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(PhotometricConfig(), **fields)
