"""Clips of a single video file, sampled and cropped as in the evaluation of a run."""

import dataclasses
import math
from pathlib import Path

import numpy as np

from data_pipelines.clips import ClipReader, find_fault, segment_frames
from data_pipelines.config import DataConfig
from data_pipelines.errors import DataError
from data_pipelines.table import Row
from data_pipelines.video import VideoInfo, probe
from hcml_jax.batch import Reads


def read_clips_of(path: Path, config: DataConfig, clips: int = 1) -> np.ndarray:
    """Clips spread evenly over a video: uint8 `[clips, T, H, W, 3]`.

    Raises:
      DataError: the video cannot be read; says why.
    """
    return _read(Row(0, Path(path), "", "test"), config, probe(path), clips)


def read_whole(path: Path, config: DataConfig, seconds: float = math.inf) -> tuple[np.ndarray, float]:
    """Every `stride`-th frame of a video, from its start on, cropped as clips are.

    Args:
      path: the video.
      config: how clips are taken of it.
      seconds: length of the part that is read, at most.

    Returns:
      uint8 `[N, H, W, 3]`, and their number per second of the video (of 25 frames a second if the file has no rate).

    Raises:
      DataError: the video cannot be read; says why.
    """
    info = probe(path)
    part = Row(0, Path(path), "", "test", end=seconds if info.fps else math.inf)
    first, last = segment_frames(part, info)
    frames = max(2, (last - first - 1) // config.stride + 1)
    return _read(part, dataclasses.replace(config, frames=frames), info, 1)[0], (info.fps or 25.0) / config.stride


def _read(row: Row, config: DataConfig, info: VideoInfo, clips: int) -> np.ndarray:
    if fault := find_fault(row, info, config):
        raise DataError(fault)
    return ClipReader(config, {row.path: info}).example(row, -1, Reads(clips=clips)).clip
