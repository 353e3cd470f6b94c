"""Writing video files with PyAV."""

from pathlib import Path

import av
import numpy as np


def encode(frames: np.ndarray, path: str | Path, *, crf: int, rate: int) -> None:
    """Writes `frames`, uint8 `[T, H, W, 3]` of even height and width, as an H.264 file.

    Args:
      frames: RGB.
      path: file to write; its ending names the container.
      crf: constant rate factor, 0 (lossless) to 51.
      rate: frames a second.
    """
    with av.open(str(path), "w") as container:
        # With macroblock trees x264's choices for frames as small as those of Motion Sprites differ from run to run.
        options = {"crf": str(crf), "preset": "veryfast", "x264-params": "mbtree=0"}
        stream = container.add_stream("libx264", rate=rate, options=options)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.thread_count = 1  # one file a thread
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
