"""Small videos whose frames tell their own number, for the tests of this folder."""

import av
import numpy as np
from av.stream import Disposition

_DARKEST, _STEP = 20, 5


def numbered_frames(count: int, height: int = 48, width: int = 64) -> np.ndarray:
    """Grey frames `[count, height, width, 3]`; frame k (at most 43) is lighter than frame k - 1."""
    levels = _DARKEST + _STEP * np.arange(count)
    return np.broadcast_to(levels[:, None, None, None], (count, height, width, 3)).astype(np.uint8)


def read_numbers(frames: np.ndarray) -> list[int]:
    """Which frames of `numbered_frames` these are."""
    return np.round((frames.mean((1, 2, 3)) - _DARKEST) / _STEP).astype(int).tolist()


def write_video(path, frames, *, codec="libx264", pix_fmt="yuv420p", rate=10, streams=1, title="", **options) -> str:
    """Encodes `frames`, uint8 `[T, H, W, 3]`; of two `streams` the second is the default."""
    with av.open(str(path), "w") as container:
        if title:
            container.metadata["title"] = title
        tracks = []
        for i in range(streams):
            track = container.add_stream(codec, rate=rate, options=options)
            shrink = 2 ** (streams - 1 - i)
            track.height, track.width = frames.shape[1] // shrink, frames.shape[2] // shrink
            track.pix_fmt = pix_fmt
            track.disposition = Disposition.default if i == streams - 1 else Disposition(0)
            tracks.append(track)
        for frame in frames:
            for track in tracks:
                picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
                picture = picture.reformat(width=track.width, height=track.height, format=pix_fmt)
                container.mux(track.encode(picture))
        for track in tracks:
            container.mux(track.encode(None))
    return str(path)
