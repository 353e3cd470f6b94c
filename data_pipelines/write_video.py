"""Writing video files with PyAV."""

from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

import av
import numpy as np


class VideoWriter:
    """Writes H.264, frame by frame.

    Args:
      file: a path, whose ending names the container, or an open file.
      size: (height, width) of the frames, even.
      rate: frames a second.
      options: of libx264.
      container: its name, for an open file.
    """

    def __init__(
        self,
        file: str | Path | BinaryIO,
        size: tuple[int, int],
        rate: int | Fraction,
        options: Mapping[str, str],
        container: str | None = None,
    ):
        named = isinstance(file, str | Path)
        self._container = av.open(str(file) if named else file, "w", format=container)
        self._stream = self._container.add_stream("libx264", rate=rate, options=dict(options))
        self._stream.height, self._stream.width = size
        self._stream.pix_fmt = "yuv420p"
        self._stream.thread_count = 1  # one file a thread

    def add(self, frame: np.ndarray) -> None:
        """Encodes a frame, uint8 `[H, W, 3]`, RGB."""
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
        self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        """Writes what the encoder still holds, and ends the file."""
        self._container.mux(self._stream.encode(None))
        self._container.close()


def encode(frames: np.ndarray, path: str | Path, *, crf: int, rate: int) -> None:
    """Writes `frames`, uint8 `[T, H, W, 3]` of even height and width, as an H.264 file.

    Args:
      frames: RGB.
      path: file to write; its ending names the container.
      crf: constant rate factor, 0 (lossless) to 51.
      rate: frames a second.
    """
    # With macroblock trees x264's choices for frames as small as those of Motion Sprites differ from run to run.
    options = {"crf": str(crf), "preset": "veryfast", "x264-params": "mbtree=0"}
    writer = VideoWriter(path, frames.shape[1:3], rate, options)
    for frame in frames:
        writer.add(frame)
    writer.close()
