"""What needs no network, to hold networks against: maps of pixels, of frame differences, of classical optical flow."""

import functools
import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np

from hcml_jax import augment
from hcml_jax.config import ConfigError
from hcml_jax.ops import resize_area

SIDE = 8  # cells of a map along height and width
DIRECTIONS = 8  # of the histogram of flow


@jax.jit
def pixels(clips) -> jax.Array:
    """Coarse frames `[B, T, 8, 8, 3]` in `[0, 1]`."""
    return resize_area(augment.to_float(clips), SIDE, SIDE)


@jax.jit
def frame_difference(clips) -> jax.Array:
    """Coarse mean absolute differences of each frame and the next: `[B, T - 1, 8, 8, 1]`."""
    clips = augment.to_float(clips)
    difference = abs(clips[:, 1:] - clips[:, :-1]).mean(-1, keepdims=True)
    return resize_area(difference, SIDE, SIDE)


def optical_flow(clips) -> jax.Array:
    """Coarse histograms of the direction of flow, weighted by its length: `[B, T - 1, 8, 8, 8]`, in pixels.

    The flow is OpenCV's DIS (Kroeger et al., 2016). Direction d holds angles from d to d + 1 eighths of a turn, from
    right (0) by way of down (2).
    """
    return _histogram(dis_flow(np.asarray(clips)))


BASELINES: dict[str, Callable] = {"frame_difference": frame_difference, "optical_flow": optical_flow, "pixels": pixels}


def check_baselines(names) -> None:
    """Raises ConfigError if a baseline needs a package that is not there."""
    if "optical_flow" in names:
        _opencv()


def dis_flow(clips: np.ndarray) -> np.ndarray:
    """Flow `[B, T - 1, H, W, 2]`, (u right, v down) in pixels, of uint8 clips `[B, T, H, W, 3]`, by OpenCV's DIS."""
    _opencv()
    with ThreadPoolExecutor() as threads:
        return np.stack(list(threads.map(_flow_of_clip, clips)))


def _flow_of_clip(clip: np.ndarray) -> np.ndarray:
    cv2 = _opencv()
    method = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)  # holds state: one for each thread
    gray = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in clip]
    return np.stack([method.calc(*pair, None) for pair in itertools.pairwise(gray)])


@jax.jit
def _histogram(flow) -> jax.Array:
    length = jnp.linalg.norm(flow, axis=-1, keepdims=True)
    turns = jnp.arctan2(flow[..., 1], flow[..., 0]) / (2 * jnp.pi)
    direction = jnp.floor(turns * DIRECTIONS).astype(jnp.int32) % DIRECTIONS
    return resize_area(jax.nn.one_hot(direction, DIRECTIONS) * length, SIDE, SIDE)


@functools.cache
def _opencv():
    try:
        import cv2
    except ImportError as error:
        raise ConfigError(
            "the baseline 'optical_flow' needs OpenCV: pip install 'hcml_jax[data]', or leave it out of "
            "config.evaluation.baselines"
        ) from error
    cv2.setNumThreads(1)  # clips are read side by side already
    return cv2
