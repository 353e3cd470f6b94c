"""What to show of which video: order, frames, size and crop, pure in (seed, epoch, row)."""

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from data_pipelines.config import DataConfig

_ORDER, _VIEW = 1, 2  # keep the streams of random numbers apart


class View(NamedTuple):
    """A clip's place in its video.

    Attributes:
      indices: frame numbers, int `[T]`; they decrease only where a short video begins again.
      size: (height, width) to resize frames to.
      corner: (top, left) of the crop in the resized frame.
    """

    indices: np.ndarray
    size: tuple[int, int]
    corner: tuple[int, int]


@lru_cache(maxsize=4)
def epoch_order(num_rows: int, seed: int, epoch: int) -> np.ndarray:
    """The order in which an epoch shows its rows: a permutation of 0..num_rows-1."""
    return np.random.default_rng([_ORDER, seed, epoch]).permutation(num_rows)


def view_generator(seed: int, epoch: int, row: int) -> np.random.Generator:
    """The source of all that is random about one row in one epoch, whichever host reads it."""
    return np.random.default_rng([_VIEW, seed, epoch, row])


def draw_view(
    config: DataConfig,
    segment: tuple[int, int],
    frame_size: tuple[int, int],
    generator: np.random.Generator | None = None,
) -> View:
    """Chooses the clip of a video: at random with `generator`, in the middle without.

    Args:
      config: how to sample.
      segment: (first frame, one past the last) that may be shown; where they are fewer than the
        clip spans, it begins again from the first.
      frame_size: (height, width) of the video.
      generator: numpy generator, or None.
    """
    first, last = segment
    room = max(last - first - config.span, 0)
    short_side, start, top, left = config.short_side[0], room // 2, 0.5, 0.5
    if generator is not None:
        short_side = int(generator.integers(config.short_side[0], config.short_side[1] + 1))
        start = int(generator.integers(room + 1))
        top, left = generator.random(2)
    steps = start + config.stride * np.arange(config.frames)
    size = resized(frame_size, short_side)
    corner = tuple(
        int(share * (side - config.crop + 1)) for share, side in zip((top, left), size, strict=True)
    )
    return View(first + steps % (last - first), size, corner)


def resized(frame_size: tuple[int, int], short_side: int) -> tuple[int, int]:
    """(height, width) whose shorter side is `short_side`, at the same ratio."""
    scale = short_side / min(frame_size)
    return round(frame_size[0] * scale), round(frame_size[1] * scale)
