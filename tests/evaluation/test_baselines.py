"""Baselines by hand, and on clips whose motion is known."""

import sys

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from data_pipelines.flow import dis_flow, opencv
from hcml_jax.config import ConfigError
from hcml_jax.evaluation.baselines import check_baselines, frame_difference, optical_flow, pixels

RNG = np.random.default_rng(0)


def moving(u, v, frames=4, side=48):
    """A texture that moves by (u, v) pixels a frame: uint8 [1, T, side, side, 3]."""
    texture = gaussian_filter(RNG.uniform(0, 255, (side + 40, side + 40, 3)), (2, 2, 0))
    texture = 255 * (texture - texture.min()) / np.ptp(texture)
    corners = ((20 - v * t, 20 - u * t) for t in range(frames))
    return np.stack([texture[y : y + side, x : x + side] for y, x in corners]).astype(np.uint8)[None]


def test_frame_differences_are_coarse_means():
    clips = RNG.integers(0, 256, (2, 4, 16, 24, 3), dtype=np.uint8)
    found = frame_difference(clips)
    difference = abs(np.diff(clips / 255, axis=1)).mean(-1)
    expected = difference.reshape(2, 3, 8, 2, 8, 3).mean((3, 5))
    np.testing.assert_allclose(found, expected[..., None], rtol=1e-5)


def test_pixels_are_coarse_frames():
    clips = RNG.integers(0, 256, (2, 4, 16, 16, 3), dtype=np.uint8)
    np.testing.assert_allclose(pixels(clips), clips.reshape(2, 4, 8, 2, 8, 2, 3).mean((3, 5)) / 255, rtol=1e-5)


@pytest.mark.parametrize(("motion", "direction"), [((3, 1), 0), ((1, 3), 1), ((-1, 2), 2), ((-3, -1), 4), ((1, -2), 6)])
def test_flow_falls_into_the_bin_of_its_direction(motion, direction):
    clip = moving(*motion)
    flow = dis_flow(clip[0])
    np.testing.assert_allclose(flow[:, 12:-12, 12:-12].mean((1, 2)), [motion] * 3, atol=0.1)
    found = np.asarray(optical_flow(clip))
    assert found.shape == (1, 3, 8, 8, 8)
    inner = found[0, :, 2:-2, 2:-2]
    assert (inner.argmax(-1) == direction).all()
    np.testing.assert_allclose(inner.sum(-1).mean(), np.hypot(*motion), rtol=0.05)


def test_opencv_that_is_not_there_is_asked_for(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    opencv.cache_clear()
    check_baselines(["pixels"])
    with pytest.raises(ConfigError, match="the baseline 'optical_flow': .* needs OpenCV"):
        check_baselines(["pixels", "optical_flow"])
