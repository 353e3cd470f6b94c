"""What to show of which video: order, frames, size and crop, pure in (seed, stage, epoch, row)."""

import math
import zlib
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from data_pipelines.config import DataConfig
from hcml_jax.batch import Reads

Box = tuple[int, int, int, int]  # (top, left, height, width)

_ORDER, _VIEW, _MIXTURE = 1, 2, 3  # keep the streams of random numbers apart
_BLOCK = 1000  # examples in which the shares of a mixture are exact
_CORNERS = (0, 0), (0, 1), (1, 0), (1, 1), (0.5, 0.5)  # shares of the room down and across
_TRIES = 10  # of a random share of a frame


class View(NamedTuple):
    """A clip's place in its video, with the F frames behind it.

    Attributes:
      indices: frame numbers, int `[T + F]`; they decrease only where a short video loops.
      consecutive: bool `[T + F - 1]`, whether the next frame is `stride` frames later in the video.
      box: (top, left, height, width) of the part that is shown, in whole pixels of the video.
      side: of the square that this part is resized to.
    """

    indices: np.ndarray
    consecutive: np.ndarray
    box: Box
    side: int


@lru_cache(maxsize=4)
def epoch_order(num_rows: int, seed: int, stage: str, epoch: int) -> np.ndarray:
    """The order in which an epoch shows its rows: a permutation of 0..num_rows-1."""
    return _generator(_ORDER, seed, stage, epoch).permutation(num_rows)


def mixed_place(number: int, shares: tuple[float, ...], seed: int, stage: str) -> tuple[int, int]:
    """Which source of a mixture gives training example `number`, and its how many-th that is, from 0.

    Each thousand examples holds the shares exactly, rounded to a thousandth, in a random order of its own.

    Args:
      number: of the example, from 0.
      shares: of the sources; their sum is 1.
      seed, stage: of the order.
    """
    block, place = divmod(number, _BLOCK)
    sources, ranks, counts = _mixed_block(shares, seed, stage, block)
    source = int(sources[place])
    return source, block * int(counts[source]) + int(ranks[place])


@lru_cache(maxsize=16)
def _mixed_block(shares: tuple[float, ...], seed: int, stage: str, block: int) -> tuple[np.ndarray, ...]:
    """Source and rank within it of each example of a block; and how many each source gives."""
    counts = np.diff(np.round(_BLOCK * np.cumsum([0.0, *shares]))).astype(int)
    sources = _generator(_MIXTURE, seed, stage, block).permutation(np.repeat(np.arange(len(shares)), counts))
    ranks = np.empty(_BLOCK, int)
    for source, count in enumerate(counts):
        ranks[sources == source] = np.arange(count)
    return sources, ranks, counts


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
        for box in _boxes(config, reads, frame_size, generator):
            views.append(View(indices, consecutive, box, reads.crop or config.crop))
    return views


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


def _boxes(
    config: DataConfig, reads: Reads, frame_size: tuple[int, int], generator: np.random.Generator | None
) -> list[Box]:
    """What a clip shows: one box at random, or as many as an evaluation asks for."""
    return _spread(config, reads, frame_size) if generator is None else [_drawn(config, reads, frame_size, generator)]


def _spread(config: DataConfig, reads: Reads, frame_size: tuple[int, int]) -> list[Box]:
    """The boxes of an evaluation: at the corners and in the middle, or evenly spread along the longer side; a single
    one is in the middle."""
    size = _square(frame_size, reads.crop or config.crop, reads.short_side or config.short_side[0])
    if reads.corners:
        everywhere = _CORNERS
    else:
        along = np.linspace(0, 1, reads.crops) if reads.crops > 1 else [0.5]
        everywhere = [(share, 0.5) if frame_size[0] > frame_size[1] else (0.5, share) for share in along]
    return [_placed(size, shares, frame_size) for shares in everywhere]


def _drawn(config: DataConfig, reads: Reads, frame_size: tuple[int, int], generator: np.random.Generator) -> Box:
    """A random box."""
    shares = 0.5, 0.5
    if reads.area is None:
        size = _square(frame_size, config.crop, int(generator.integers(*config.short_side, endpoint=True)))
        shares = generator.random(2)
    elif size := _random_size(reads, frame_size, generator):
        shares = generator.random(2)
    else:
        size = _largest_size(reads, frame_size)
    return _placed(size, shares, frame_size)


def _square(frame_size: tuple[int, int], crop: int, short_side: int) -> tuple[int, int]:
    """(height, width) of the square that is `crop` across once the shorter side of the frame is `short_side`."""
    side = max(round(crop * min(frame_size) / short_side), 1)
    return side, side


def _random_size(reads: Reads, frame_size: tuple[int, int], generator: np.random.Generator) -> tuple[int, int] | None:
    """(height, width) of a box with a random share of a frame; None if no try fits into the frame."""
    height, width = frame_size
    for _ in range(_TRIES):
        area = generator.uniform(*reads.area) * height * width
        aspect = math.exp(generator.uniform(*map(math.log, reads.aspect)))
        size = round(math.sqrt(area / aspect)), round(math.sqrt(area * aspect))
        if 1 <= size[0] <= height and 1 <= size[1] <= width:
            return size
    return None


def _largest_size(reads: Reads, frame_size: tuple[int, int]) -> tuple[int, int]:
    """(height, width) of the largest part of a frame at an allowed aspect ratio."""
    height, width = frame_size
    least, most = reads.aspect
    return round(min(height, width / least)), round(min(width, height * most))


def _placed(size: tuple[int, int], shares: Sequence[float], frame_size: tuple[int, int]) -> Box:
    """The box of a size whose distances from the top and the left are these shares of the margin."""
    pairs = zip(shares, size, frame_size, strict=True)
    top, left = (min(int(share * (length - side + 1)), length - side) for share, side, length in pairs)
    return top, left, *size
