"""What becomes of a video in a shard: JPEG files of its frames, a video that decodes fast, or the file as it was."""

import dataclasses
import io
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data_pipelines.errors import VideoError
from data_pipelines.images import encode_jpeg
from data_pipelines.verdict import BAD, Verdict, verdict_on
from data_pipelines.video_info import Held, Part, VideoInfo
from hcml_jax.config import ConfigError

FRAMES, VIDEO, ORIGINAL = "frames", "video", "original"
KINDS = FRAMES, VIDEO, ORIGINAL
LARGEST_RATE = 1000  # denominator of a frame rate


@dataclasses.dataclass(frozen=True)
class Layout:
    """How videos are stored.

    Attributes:
      kind: "frames": each frame a JPEG file, a record each; "video": H.264 with a keyframe every `keyframe_every`
        frames, without B-frames, made to decode fast; "original": the files as they are.
      short_side: of the stored frames, at most; 0: as they are. Nothing is enlarged.
      quality: of JPEG, 1 to 100.
      crf: constant rate factor of H.264, 0 (lossless) to 51.
      keyframe_every: frames from one keyframe to the next.

    Raises:
      ConfigError: a field is out of its range.
    """

    kind: str
    short_side: int = 256
    quality: int = 90
    crf: int = 20
    keyframe_every: int = 16

    def __post_init__(self):
        if self.kind not in KINDS:
            raise ConfigError(f"layout: there is no {self.kind!r}; there are {', '.join(KINDS)}")
        ranges = {"quality": (1, 100), "crf": (0, 51), "keyframe_every": (1, 1000), "short_side": (0, 10_000)}
        for name, (low, high) in ranges.items():
            if not low <= getattr(self, name) <= high:
                raise ConfigError(f"{name}: found {getattr(self, name)}, must be in {low}..{high}")

    @property
    def name(self) -> str:
        """Of the layout with its sizes, such as "frames_256_q90"."""
        return {
            FRAMES: f"frames_{self.short_side}_q{self.quality}",
            VIDEO: f"video_{self.short_side}_crf{self.crf}_every{self.keyframe_every}",
            ORIGINAL: ORIGINAL,
        }[self.kind]

    def size(self, info: VideoInfo) -> tuple[int, int]:
        """(height, width) of the stored frames of a video; even, for H.264 stores colour at half the resolution."""
        scale = min(self.short_side / min(info.height, info.width), 1.0) if self.short_side else 1.0
        step = 2 if self.kind == VIDEO else 1
        return tuple(max(round(side * scale / step), 1) * step for side in (info.height, info.width))


class Encoded(NamedTuple):
    """A video as it is stored.

    Attributes:
      verdict: on the video.
      info: of what is stored; None if it is bad.
      records: of a shard: its frames, or one.
    """

    verdict: Verdict
    info: VideoInfo | None = None
    records: tuple[bytes, ...] = ()


def encode(path: Path, layout: Layout) -> Encoded:
    """Decodes a video to its end, judges it, and encodes what can be read of it."""
    from data_pipelines.video import decode_all, probe  # needs PyAV

    try:
        info = probe(path)
        if layout.kind == ORIGINAL:
            content = _content(path)
            verdict = verdict_on(path, info, decode_all(path, info))
            kept = info._replace(num_frames=verdict.frames)
            return Encoded(verdict) if verdict.verdict == BAD else Encoded(verdict, kept, (content,))
        store = _Jpegs(layout) if layout.kind == FRAMES else _Mp4(layout, layout.size(info), info.fps)
        part = Part(info.whole.box, layout.size(info))
        verdict = verdict_on(path, info, decode_all(path, info, part, store.add))
    except VideoError as error:
        return Encoded(Verdict(BAD, str(error)))
    if verdict.verdict == BAD:
        return Encoded(verdict)
    records = store.finish()
    if layout.kind == VIDEO:
        return Encoded(verdict, probe(Held(f"{path}, as it is stored", records[0]))._replace(fps=info.fps), records)
    height, width = layout.size(info)
    return Encoded(verdict, VideoInfo(len(records), width, height, info.fps), records)


def _content(path: Path) -> bytes:
    if path.is_dir():
        raise VideoError(f"{path}: is a folder of images, and has no file to keep as it is; choose another layout")
    return path.read_bytes()


class _Jpegs:
    def __init__(self, layout: Layout):
        self._quality, self._files = layout.quality, []

    def add(self, frame: np.ndarray) -> None:
        self._files.append(encode_jpeg(frame, self._quality))

    def finish(self) -> tuple[bytes, ...]:
        return tuple(self._files)


class _Mp4:
    def __init__(self, layout: Layout, size: tuple[int, int], fps: float):
        from data_pipelines.write_video import VideoWriter  # needs PyAV

        every = layout.keyframe_every
        self._file = io.BytesIO()
        x264 = f"keyint={every}:min-keyint={every}:scenecut=0:bframes=0:mbtree=0"
        options = {"crf": str(layout.crf), "preset": "veryfast", "tune": "fastdecode", "x264-params": x264}
        rate = Fraction(fps).limit_denominator(LARGEST_RATE) if fps else Fraction(25)
        self._writer = VideoWriter(self._file, size, rate, options, container="mp4")

    def add(self, frame: np.ndarray) -> None:
        self._writer.add(frame)

    def finish(self) -> tuple[bytes, ...]:
        self._writer.close()
        return (self._file.getvalue(),)
