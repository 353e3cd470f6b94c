"""Baselines without a network: maps of pixels, of frame differences, of classical optical flow."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np

from data_pipelines.errors import DataError
from data_pipelines.flow import dis_flow, opencv
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
    return _histogram(dis_flow_of_clips(np.asarray(clips)))


BASELINES: dict[str, Callable] = {"frame_difference": frame_difference, "optical_flow": optical_flow, "pixels": pixels}


def check_baselines(names) -> None:
    """Raises ConfigError if a baseline needs a package that is not there."""
    if "optical_flow" not in names:
        return
    try:
        opencv()
    except DataError as error:
        raise ConfigError(
            f"the baseline 'optical_flow': {error}, or leave it out of config.evaluation.baselines"
        ) from error


def dis_flow_of_clips(clips: np.ndarray) -> np.ndarray:
    """`dis_flow` of each of clips `[B, T, H, W, 3]`: `[B, T - 1, H, W, 2]`."""
    opencv()  # in one thread, the first time
    with ThreadPoolExecutor() as threads:
        return np.stack(list(threads.map(dis_flow, clips)))


@jax.jit
def _histogram(flow) -> jax.Array:
    length = jnp.linalg.norm(flow, axis=-1, keepdims=True)
    turns = jnp.arctan2(flow[..., 1], flow[..., 0]) / (2 * jnp.pi)
    direction = jnp.floor(turns * DIRECTIONS).astype(jnp.int32) % DIRECTIONS
    return resize_area(jax.nn.one_hot(direction, DIRECTIONS) * length, SIDE, SIDE)
