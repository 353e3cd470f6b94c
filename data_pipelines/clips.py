"""From a row of the table to an example: which frames, decoded, resized, with label and flow."""

import math
import threading
from collections.abc import Callable, Hashable, Mapping
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from data_pipelines.config import DataConfig
from data_pipelines.errors import DataError, VideoError
from data_pipelines.loader import Example
from data_pipelines.sampling import View, draw_view
from data_pipelines.table import Row
from data_pipelines.video import VideoInfo, read_frames

_NO_FLOW = np.zeros((0, 1, 1, 2), np.float32)


def segment_frames(row: Row, info: VideoInfo) -> tuple[int, int]:
    """(first frame, one past the last) of the part of the video that `row` names.

    Frame k is shown from k / fps seconds on; a frame belongs to the part if that moment does.
    """
    if row.start == 0 and row.end == math.inf:
        return 0, info.num_frames
    first = math.ceil(row.start * info.fps - 1e-6)
    last = min(row.end * info.fps - 1e-6, info.num_frames)
    return first, max(math.ceil(last), first)


def find_fault(row: Row, info: VideoInfo | VideoError, config: DataConfig) -> str | None:
    """Why no clip can be taken of `row`; None if one can."""
    if isinstance(info, VideoError):
        return str(info)
    if info.fps == 0 and (row.start > 0 or row.end < math.inf):
        return f"{row.path}: start and end need a frame rate, and the file tells none"
    first, last = segment_frames(row, info)
    frames = min(last, info.num_frames) - first
    if frames <= 0:
        seconds = info.num_frames / info.fps
        return f"{row.path}: no frames from {row.start:g} s to {row.end:g} s of {seconds:.2f} s"
    if frames < config.span and config.short_clips == "error":
        return f"{row.path}: {frames} frames, but a clip spans {config.span}"
    return None


class FrameCache:
    """Holds decoded frames until it is full.

    It drops nothing: an epoch visits every clip once, so no clip is wanted sooner than another.

    Args:
      size_mb: most it may hold, in MB.
    """

    def __init__(self, size_mb: int):
        self._left = size_mb * 10**6
        self._held: dict[Hashable, np.ndarray] = {}
        self._lock = threading.Lock()

    def get(self, key: Hashable, make: Callable[[], np.ndarray]) -> np.ndarray:
        """What is held for `key`; if nothing, what `make` returns, held from now on if it fits."""
        frames = self._held.get(key)
        if frames is not None:
            return frames
        frames = make()
        with self._lock:
            if key not in self._held and frames.nbytes <= self._left:
                self._held[key] = frames
                self._left -= frames.nbytes
        return frames


class ClipReader:
    """Makes examples of rows.

    Args:
      config: how to sample.
      infos: what `probe` found for every video.
    """

    def __init__(self, config: DataConfig, infos: Mapping[Path, VideoInfo]):
        self._config = config
        self._infos = infos
        self._cache = FrameCache(config.cache_mb)

    def example(
        self,
        row: Row,
        label: int,
        generator: np.random.Generator | None = None,
        with_flow: bool = False,
    ) -> Example:
        """Reads the clip of `row`: at random with `generator`, in the middle without.

        Raises:
          VideoError: the video cannot be read, although its beginning could.
          DataError: the file of flow does not fit the video.
        """
        info = self._infos[row.path]
        frame_size = info.height, info.width
        view = draw_view(self._config, segment_frames(row, info), frame_size, generator)
        flow = _read_flow(row, info, view) if with_flow else _NO_FLOW
        # A random view hardly ever comes again.
        frames = self._frames(row, info, view, keep=generator is None)
        return self._pack(row, label, view, frames, flow)

    def blank(self, row: Row, label: int, with_flow: bool = False) -> Example:
        """A black example that stands for one that cannot be read; it is not valid."""
        side = self._config.crop
        view = View(np.zeros(self._config.frames, int), (side, side), (0, 0))
        frames = np.zeros((self._config.frames, side, side, 3), np.uint8)
        flow = np.zeros((self._config.frames - 1, side, side, 2), np.float32)
        example = self._pack(row, label, view, frames, flow if with_flow else _NO_FLOW)
        return example._replace(valid=np.bool_(False))

    def _frames(self, row: Row, info: VideoInfo, view: View, keep: bool) -> np.ndarray:
        ordered, places = np.unique(view.indices, return_inverse=True)

        def read() -> np.ndarray:
            return read_frames(row.path, ordered, info, view.size)

        key = row.path, view.size, tuple(ordered.tolist())
        frames = self._cache.get(key, read) if keep else read()
        return frames[places]

    def _pack(self, row: Row, label: int, view: View, frames, flow) -> Example:
        corner = np.array(view.corner, np.int32)
        index = np.int32(row.index)
        return Example(frames, corner, np.int32(label), index, np.bool_(True), flow)


def _read_flow(row: Row, info: VideoInfo, view: View) -> np.ndarray:
    """Flow `[T-1, H, W, 2]` between the frames of `view`, which follow each other, in pixels of the video."""
    wanted = (info.num_frames - 1, info.height, info.width, 2)
    try:
        with row.flow.open("rb") as opened, np.load(opened) as file:
            flow = file["flow"]
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        raise DataError(f"{row.flow}: no array 'flow' can be read ({error})") from error
    if flow.shape != wanted:
        raise DataError(f"{row.flow}: flow has shape {flow.shape}, its video needs {wanted}")
    return flow[view.indices[:-1]].astype(np.float32)
