"""From a row of the table to an example: which frames, decoded, resized, cropped, with label and flow."""

import math
import threading
from collections.abc import Callable, Hashable, Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from data_pipelines.config import DataConfig
from data_pipelines.errors import DataError, VideoError
from data_pipelines.flow import dis_flow
from data_pipelines.flow_files import FlowFiles
from data_pipelines.sampling import View, draw_views
from data_pipelines.table import Row
from data_pipelines.video import Part, VideoInfo, read_clips
from hcml_jax.batch import Batch, Reads, blank_batch
from hcml_jax.files import DAMAGED, read_array


def segment_frames(row: Row, info: VideoInfo) -> tuple[int, int]:
    """(first frame, one past the last) of the part of the video that `row` names.

    Frame k is shown from k / fps seconds on; a frame belongs to the part if that moment does.
    """
    if row.start == 0 and row.end == math.inf:
        return 0, info.num_frames
    first = math.ceil(row.start * info.fps - 1e-6)
    last = min(row.end * info.fps - 1e-6, info.num_frames)
    return first, max(math.ceil(last), first)


def find_fault(row: Row, info: VideoInfo | VideoError, config: DataConfig, future: int = 0) -> str | None:
    """Why no clip with `future` frames after it can be taken from `row`; None if one can."""
    if isinstance(info, VideoError):
        return str(info)
    if info.fps == 0 and (row.start > 0 or row.end < math.inf):
        return f"{row.path}: start and end need a frame rate, and the file tells none"
    first, last = segment_frames(row, info)
    frames = last - first
    if frames <= 0:
        seconds = info.num_frames / info.fps
        return f"{row.path}: no frames from {row.start:g} s to {row.end:g} s of {seconds:.2f} s"
    span, behind = config.span(future), f" with the {future} frames behind it" if future else ""
    if frames < span and config.short_clips == "error":
        return f"{row.path}: {frames} frames, but a clip{behind} spans {span}"
    return None


class FrameCache:
    """A cache of decoded clips that is filled once.

    It evicts nothing: an epoch visits every clip once, so no clip is needed sooner than another.

    Args:
      size_mb: capacity in MB.
    """

    def __init__(self, size_mb: int):
        self._left = size_mb * 10**6
        self._held: dict[Hashable, np.ndarray] = {}
        self._lock = threading.Lock()

    def get(self, key: Hashable, make: Callable[[], np.ndarray]) -> np.ndarray:
        """The cached array for `key`, or else the result of `make`, which is cached if it fits."""
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
    """Makes examples of rows: a `Batch` without its first axis.

    Args:
      config: how to sample.
      infos: what `probe` found for every video.
      read: reads clips of a video; None: from its file.

    Raises:
      DataError: config.flow names no folder of computed flow, or one of another stride.
    """

    def __init__(self, config: DataConfig, infos: Mapping[Path, VideoInfo], read: Callable | None = None):
        self._config = config
        self._infos = infos
        self._read = read or read_clips
        self._cache = FrameCache(config.cache_mb)
        self._flow_files = FlowFiles(Path(config.flow), config.root) if config.computed_flow else None
        if self._flow_files and (found := self._flow_files.description.stride) != config.stride:
            raise DataError(
                f"{config.flow} holds flow for clips of stride {found}, and these have stride {config.stride}: set "
                f"config.data.stride={found}, or compute it again"
            )

    def example(self, row: Row, label: int, reads: Reads, generator: np.random.Generator | None = None) -> Batch:
        """Reads the clips of `row`: at random with `generator`, evenly spread without.

        Raises:
          VideoError: the video cannot be read, although its beginning could.
          DataError: the file of flow does not fit the video.
        """
        info, frames = self._infos[row.path], self._config.frames
        segment, frame_size = segment_frames(row, info), (info.height, info.width)
        starts = self._starts(row, reads, moving=self._config.moving and generator is not None)
        views = draw_views(self._config, reads, segment, frame_size, generator, starts)
        shown = self._shown(row, reads, views, keep=generator is None)
        return Batch(
            clip=shown[:, :frames],
            box=np.array([view.box for view in views], np.float32),
            start=np.array([view.indices[0] for view in views], np.int32),
            consecutive=np.stack([view.consecutive for view in views]),
            label=np.int32(label),
            index=np.int32(row.index),
            valid=np.bool_(True),
            future=shown[:, frames:] if reads.future else None,
            flow=self._flow(row, info, views, shown) if reads.flow else None,
        )

    def whole_frame(self, row: Row, number: int) -> tuple[np.ndarray | None, float]:
        """A frame of its video, uint8 `[H, W, 3]`, and its frames a second; 0 if the file does not tell."""
        info = self._infos[row.path]
        (frames,) = self._read(row.path, [([number], info.whole)], info)
        return frames[0], info.fps

    def flow_fault(self, row: Row, reads: Reads) -> str | None:
        """Why flow cannot be read of the clips of `row`; None if it can."""
        config = self._config
        if config.flow == "dis":
            return None
        if self._flow_files:
            info = self._infos[row.path]
            if fault := self._flow_files.fault(row.path, (info.num_frames, info.height, info.width)):
                return fault
            found = len(self._starts(row, reads, moving=False))
            return None if found else f"{row.path}: its flow is too short for a clip"
        if config.stride > 1 or config.short_clips != "error":
            return f"{row.path}: true flow needs stride 1 and short_clips 'error'; flow 'dis' is computed"
        return None if row.flow else f"{row.path}: the table's column 'flow' names no file; flow 'dis' is computed"

    def flow_left_out(self, row: Row) -> str | None:
        """Why the computation of flow left out the video of `row`, as recorded in its folder; None if it did not."""
        return self._flow_files.left_out(row.path) if self._flow_files else None

    def _starts(self, row: Row, reads: Reads, moving: bool) -> np.ndarray | None:
        """Frames of its video at which a clip of `row` may begin; None: at any."""
        if not (reads.flow and self._flow_files):
            return None
        segment, maps = segment_frames(row, self._infos[row.path]), self._config.frames - 1 + reads.future
        return self._flow_files.starts(row.path, segment, maps, moving, loop=self._config.short_clips == "loop")

    def blank(self, reads: Reads, label: int = -1, index: int = 0) -> Batch:
        """A black example that stands for one that cannot be read; it is not valid."""
        shape = self._config.frames, self._config.crop, self._config.crop, 3
        batch = blank_batch(1, shape, reads)
        example = Batch(*(None if array is None else array[0] for array in batch))
        return example._replace(label=np.int32(label), index=np.int32(index))

    def _shown(self, row: Row, reads: Reads, views: list[View], keep: bool) -> np.ndarray:
        """Frames `[V, T + F, H, W, 3]`, cropped; with `keep`, through the cache."""

        def read() -> np.ndarray:
            wanted = [(view.indices, Part(view.box, (view.side, view.side))) for view in views]
            clips = self._read(row.path, wanted, self._infos[row.path])
            return np.stack(clips) if len(clips) > 1 else clips[0][None]  # a copy takes a tenth of a millisecond a MB

        # Random views hardly ever repeat; the others depend only on the row and these numbers.
        key = row.index, reads.clips, reads.future, reads.crops, reads.corners, reads.crop, reads.short_side, reads.flow
        return self._cache.get(key, read) if keep else read()

    def _flow(self, row: Row, info: VideoInfo, views: list[View], shown: np.ndarray) -> np.ndarray:
        """Flow `[V, T + F - 1, H, W, 2]` between the frames of the clips, cropped and resized like them."""
        if self._config.flow == "dis":
            return np.stack([dis_flow(clip) for clip in shown])
        frame_size = info.height, info.width
        places = [view.indices[:-1] for view in views]
        if self._flow_files:
            flow = self._flow_files.read(row.path)
            places = [self._flow_files.rows(place, len(flow)) for place in places]
        else:
            flow = _read_flow(row, info)
        pairs = zip(places, views, strict=True)
        return np.stack([_fit_flow(flow[place].astype(np.float32), view, frame_size) for place, view in pairs])


def _fit_flow(flow: np.ndarray, view: View, frame_size: tuple[int, int]) -> np.ndarray:
    """Crop and resize flow `[T, H', W', 2]` of whole frames, in pixels of its own maps, to a view of the video."""
    down, across = (n / m for n, m in zip(flow.shape[1:3], frame_size, strict=True))
    side, (top, left, height, width) = view.side, np.multiply(view.box, (down, across, down, across))
    box = left, top, left + width, top + height
    planes = np.moveaxis(flow, -1, 1).reshape(-1, *flow.shape[1:3])
    bilinear = Image.Resampling.BILINEAR  # antialiased where it shrinks
    planes = [Image.fromarray(plane).resize((side, side), bilinear, box) for plane in planes]
    flow = np.moveaxis(np.stack(planes).reshape(-1, 2, side, side), 1, -1)
    return flow * np.float32([side / width, side / height])


def _read_flow(row: Row, info: VideoInfo) -> np.ndarray:
    """Flow `[T' - 1, H', W', 2]` of a whole video of T' frames, in its pixels."""
    wanted = (info.num_frames - 1, info.height, info.width, 2)
    try:
        flow = read_array(row.flow, "flow")
    except DAMAGED as error:
        raise DataError(f"{row.flow}: no array 'flow' can be read ({error})") from error
    if flow.shape != wanted:
        raise DataError(f"{row.flow}: flow has shape {flow.shape}, its video needs {wanted}")
    return flow
