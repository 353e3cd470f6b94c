"""Videos that are folders of images, one a frame, in the order of their numbers (Something-Something v1)."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from data_pipelines.errors import VideoError
from data_pipelines.images import cut_out, image_size
from data_pipelines.video_info import Part, VideoInfo

ENDINGS = ".jpg", ".jpeg", ".png"
_NUMBERS = re.compile(r"(\d+)")  # "10.jpg" comes after "9.jpg"


def probe(folder: Path) -> VideoInfo:
    """Counts the frames, and decodes the first; such a folder tells no rate.

    Raises:
      VideoError: it has no images, or the first cannot be decoded.
    """
    files = _files(folder)
    if not files:
        raise VideoError(f"{folder}: has no images ({', '.join(ENDINGS)})")
    height, width = image_size(files[0].read_bytes(), str(files[0]))
    return VideoInfo(len(files), width, height, 0.0)


def read_clips(folder: Path, clips: Sequence[tuple[Sequence[int], Part]], info: VideoInfo) -> list[np.ndarray]:
    """Clips of uint8 `[T, H, W, 3]`: see `data_pipelines.video.read_clips`."""
    files = _files(folder)
    if len(files) < info.num_frames:
        raise VideoError(f"{folder}: ends before frame {len(files)} of {info.num_frames}")
    contents = {i: files[i].read_bytes() for i in {i for indices, _ in clips for i in indices}}
    return [np.stack([cut_out(contents[i], *part, str(files[i])) for i in indices]) for indices, part in clips]


def use_all(folder: Path, info: VideoInfo, part: Part, use: Callable[[np.ndarray], None]) -> tuple[int, str]:
    """How many frames can be decoded, and given to `use`, before one that cannot; and what is wrong with that one."""
    for number in range(info.num_frames):
        try:
            use(read_clips(folder, [([number], part)], info)[0][0])
        except VideoError as error:
            return number, str(error)
    return info.num_frames, ""


def _files(folder: Path) -> list[Path]:
    files = (path for path in folder.iterdir() if path.suffix.lower() in ENDINGS and not path.name.startswith("."))
    return sorted(files, key=lambda path: [int(part) if part.isdigit() else part for part in _NUMBERS.split(path.stem)])
