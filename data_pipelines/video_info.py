"""What is known of a video before its frames are read, and what is asked for of them. Needs no decoder."""

from pathlib import Path
from typing import NamedTuple

Size = tuple[int, int]  # (height, width)


class Held(NamedTuple):
    """A video file in memory.

    Attributes:
      name: to call it by in errors.
      content: of the file.
    """

    name: str
    content: bytes

    def __str__(self) -> str:
        return self.name


Source = str | Path | Held
"""A video: a file, a folder of images, or a file in memory."""


class Part(NamedTuple):
    """A part of each frame of a clip.

    Attributes:
      box: (top, left, height, width) in pixels of the upright frame.
      size: to resize it to, bilinearly and antialiased.
    """

    box: tuple[int, int, int, int]
    size: Size


class VideoInfo(NamedTuple):
    """What `probe` finds.

    Attributes:
      num_frames: frames of the video.
      width, height: of an upright frame, in pixels.
      fps: mean frames per second; 0 where the file does not tell.
      keyframes: (frame, presentation time) where decoding may start; empty: at the start only.
      first_time, step: presentation time of frame 0, and from one frame to the next; step 0: it varies or is not known.
    """

    num_frames: int
    width: int
    height: int
    fps: float
    keyframes: tuple[tuple[int, int], ...] = ()
    first_time: int = 0
    step: int = 0

    @property
    def whole(self) -> Part:
        """All of a frame, as it is."""
        size = self.height, self.width
        return Part((0, 0, *size), size)
