"""What to show of which video: order, frames, size and crop, pure in (seed, stage, epoch, row)."""

import math
import zlib
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from data_pipelines.config import DataConfig
from hcml_jax.batch import Reads

_ORDER, _VIEW = 1, 2  # keep the streams of random numbers apart
_CORNERS = (0, 0), (0, 1), (1, 0), (1, 1), (0.5, 0.5)  # shares of the room down and across
_TRIES = 10  # of a random share of a frame


class View(NamedTuple):
    """A clip's place in its video, with the F frames behind it.

    Attributes:
      indices: frame numbers, int `[T + F]`; they decrease only where a short video loops.
      consecutive: bool `[T + F - 1]`, whether the next frame is `stride` frames later in the video.
      size: (height, width) to resize frames to.
      corner: (top, left) of the crop in the resized frame.
      side: of the crop, in pixels of the resized frame.
      box: (top, left, height, width) of the crop in pixels of the video.
    """

    indices: np.ndarray
    consecutive: np.ndarray
    size: tuple[int, int]
    corner: tuple[int, int]
    side: int
    box: tuple[float, float, float, float]


@lru_cache(maxsize=4)
def epoch_order(num_rows: int, seed: int, stage: str, epoch: int) -> np.ndarray:
    """The order in which an epoch shows its rows: a permutation of 0..num_rows-1."""
    return _generator(_ORDER, seed, stage, epoch).permutation(num_rows)


def view_generator(seed: int, stage: str, epoch: int, row: int) -> np.random.Generator:
    """The random generator for one row in one epoch, the same on every host."""
    return _generator(_VIEW, seed, stage, epoch, row)


def draw_views(
    config: DataConfig,
    reads: Reads,
    segment: tuple[int, int],
    frame_size: tuple[int, int],
    generator: np.random.Generator | None = None,
    starts: np.ndarray | None = None,
) -> list[View]:
    """Chooses the V clips of a video: at random with `generator`, otherwise evenly spread in time and along the frame.

    Args:
      config: how to sample.
      reads: number of clips, their share of the frame, and number of frames after them.
      segment: (first frame, one past the last) that may be shown; if they are fewer than the
        clip spans, the segment is looped.
      frame_size: (height, width) of the video.
      generator: numpy generator, or None.
      starts: frames at which a clip may begin, in rising order, one or more; None: at any.
    """
    first, last = segment
    room = max(last - first - config.span(reads.future), 0)
    allowed = np.arange(room + 1) if starts is None else starts - first
    steps = config.stride * np.arange(config.frames + reads.future)
    views = []
    for start in _starts(reads, allowed, generator):
        indices = first + (start + steps) % (last - first)
        consecutive = np.diff(indices) == config.stride
        for size, side, corner in _places(config, reads, frame_size, generator):
            views.append(View(indices, consecutive, size, corner, side, _box(side, frame_size, size, corner)))
    return views


def resized(frame_size: tuple[int, int], short_side: int) -> tuple[int, int]:
    """(height, width) whose shorter side is `short_side`, at the same ratio."""
    scale = short_side / min(frame_size)
    return round(frame_size[0] * scale), round(frame_size[1] * scale)


def _generator(stream: int, seed: int, stage: str, *numbers: int) -> np.random.Generator:
    return np.random.default_rng([stream, seed, zlib.crc32(stage.encode()), *numbers])


def _starts(reads: Reads, allowed: np.ndarray, generator: np.random.Generator | None) -> list[int]:
    """First frames of the clips, out of those allowed, which rise."""
    most = len(allowed) - 1
    if generator is None:  # each in the middle of its part
        return [int(allowed[most * (2 * v + 1) // (2 * reads.clips)]) for v in range(reads.clips)]
    first = int(allowed[generator.integers(most + 1)])
    apart = np.abs(allowed - first)
    within = apart if reads.max_offset is None else apart[apart <= reads.max_offset]
    others = allowed[(apart >= min(reads.min_offset, within.max())) & (apart <= within.max())]
    return [first, *others[generator.integers(len(others), size=reads.clips - 1)].tolist()]


class _Place(NamedTuple):
    """Size of the resized frame, side of the crop, and the crop's corner, in pixels of the resized frame."""

    size: tuple[int, int]
    side: int
    corner: tuple[int, int]


def _places(
    config: DataConfig, reads: Reads, frame_size: tuple[int, int], generator: np.random.Generator | None
) -> list[_Place]:
    """Where a clip is cropped: once at random, or as often as an evaluation asks for."""
    return _spread(config, reads, frame_size) if generator is None else [_drawn(config, reads, frame_size, generator)]


def _spread(config: DataConfig, reads: Reads, frame_size: tuple[int, int]) -> list[_Place]:
    """The crops of an evaluation: at the corners and in the middle, or evenly spread along the longer side; a single
    one is in the middle."""
    size, side = resized(frame_size, reads.short_side or config.short_side[0]), reads.crop or config.crop
    if reads.corners:
        everywhere = _CORNERS
    else:
        along = np.linspace(0, 1, reads.crops) if reads.crops > 1 else [0.5]
        everywhere = [(share, 0.5) if size[0] > size[1] else (0.5, share) for share in along]
    return [_Place(size, side, _corner(shares, size, side)) for shares in everywhere]


def _drawn(config: DataConfig, reads: Reads, frame_size: tuple[int, int], generator: np.random.Generator) -> _Place:
    """A random crop."""
    shares, side = (0.5, 0.5), config.crop
    if reads.area is None:
        size = resized(frame_size, int(generator.integers(*config.short_side, endpoint=True)))
        shares = generator.random(2)
    elif box := _random_box(reads, frame_size, generator):
        size, shares = _enlarged(frame_size, box, side), generator.random(2)
    else:
        size = _enlarged(frame_size, _largest_box(reads, frame_size), side)
    return _Place(size, side, _corner(shares, size, side))


def _corner(shares: Sequence[float], size: tuple[int, int], side: int) -> tuple[int, int]:
    """(top, left) of a crop whose offsets are these shares of the margin."""
    top, left = (
        min(int(share * (length - side + 1)), length - side) for share, length in zip(shares, size, strict=True)
    )
    return top, left


def _random_box(
    reads: Reads, frame_size: tuple[int, int], generator: np.random.Generator
) -> tuple[float, float] | None:
    """(height, width) of a box with a random share of a frame; None if no try fits into the frame."""
    height, width = frame_size
    for _ in range(_TRIES):
        area = generator.uniform(*reads.area) * height * width
        aspect = math.exp(generator.uniform(*map(math.log, reads.aspect)))
        box = math.sqrt(area / aspect), math.sqrt(area * aspect)
        if 1 <= box[0] <= height and 1 <= box[1] <= width:
            return box
    return None


def _largest_box(reads: Reads, frame_size: tuple[int, int]) -> tuple[float, float]:
    """(height, width) of the largest part of a frame at an allowed aspect ratio."""
    height, width = frame_size
    least, most = reads.aspect
    return min(height, width / least), min(width, height * most)


def _enlarged(frame_size: tuple[int, int], box: tuple[float, float], crop: int) -> tuple[int, int]:
    """(height, width) to which to resize a frame so that a part of size `box` becomes `crop` x `crop`."""
    return round(crop * frame_size[0] / box[0]), round(crop * frame_size[1] / box[1])


def _box(crop: int, frame_size, size, corner) -> tuple[float, float, float, float]:
    """(top, left, height, width) in pixels of the video, exact for the rounded size."""
    down, across = (f / s for f, s in zip(frame_size, size, strict=True))
    return corner[0] * down, corner[1] * across, crop * down, crop * across
