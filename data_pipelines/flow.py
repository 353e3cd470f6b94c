"""Optical flow of frames, computed on the host: without labels, and without a network."""

import functools
import itertools

import numpy as np

from data_pipelines.errors import DataError


def dis_flow(clip: np.ndarray) -> np.ndarray:
    """Flow of a clip by OpenCV's DIS (Kroeger et al., 2016), at its preset "medium".

    Args:
      clip: uint8 `[T, H, W, 3]`, RGB, two frames or more.

    Returns:
      float32 `[T - 1, H, W, 2]`, (u right, v down) in pixels, from each frame to the next.

    Raises:
      DataError: OpenCV is not installed.
    """
    cv2 = opencv()
    method = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)  # holds state: one for each thread
    gray = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in clip]
    return np.stack([method.calc(*pair, None) for pair in itertools.pairwise(gray)])


@functools.cache
def opencv():
    """OpenCV's module.

    Raises:
      DataError: it is not installed.
    """
    try:
        import cv2
    except ImportError as error:
        raise DataError("reading images, or flow by DIS, needs OpenCV: pip install 'hcml_jax[data]'") from error
    cv2.setNumThreads(1)  # clips are read side by side already
    return cv2
