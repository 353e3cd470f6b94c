"""Reading frames of video files with PyAV: any container and codec it knows, as upright RGB.

Frames are numbered in display order. MP4 and Matroska store a presentation time with every packet,
so there packets are counted, and reading starts at the keyframe before the first wanted frame.
Elsewhere packets and frames need not match (AVI packs two frames into one packet, VP8 has frames
that are never shown): those files are decoded from their start, once to count the frames and again
at every reading. Pixels are taken as square.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np

from data_pipelines.errors import VideoError

_TIMED_CONTAINERS = {"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm"}
# Titles that are not UTF-8 do no harm; from version 19 on PyAV knows that by itself.
_TOLERANT = {"metadata_errors": "ignore"} if int(av.__version__.split(".")[0]) < 19 else {}
_UNTIMED_CODECS = {"vp8", "libvpx"}  # hides frames in packets of their own


class VideoInfo(NamedTuple):
    """What `probe` finds.

    Attributes:
      num_frames: frames of the video.
      width, height: of an upright frame, in pixels.
      fps: mean frames per second; 0 where the file does not tell.
      keyframes: (frame, presentation time) where decoding may start; empty: at the start only.
    """

    num_frames: int
    width: int
    height: int
    fps: float
    keyframes: tuple[tuple[int, int], ...] = ()


def probe(path: str | Path) -> VideoInfo:
    """Counts the frames of a video (headers often err) and decodes at least the first.

    Raises:
      VideoError: the file is missing, empty, no video, or its first frame (where packets do not
        tell the number of frames: any frame) cannot be decoded. Names file and reason.
    """
    with _opened(path) as (container, stream):
        times = _packet_times(container, stream)
    with _opened(path) as (container, stream):
        frames = container.decode(stream)
        first = next(frames, None)
        if first is None:
            raise VideoError(f"{path}: has no frames")
        if times and first.pts != min(
            times
        ):  # cut out of a longer video: frames without a keyframe come first
            times = {}
        num_frames = len(times) or 1 + sum(1 for _ in frames)
        width, height = first.width, first.height
        if _quarter_turns(first) % 2:
            width, height = height, width
        fps = _frame_rate(stream, list(times))
    order = {time: i for i, time in enumerate(sorted(times))}
    keyframes = tuple((order[time], time) for time, is_key in times.items() if is_key)
    return VideoInfo(num_frames, width, height, fps, keyframes)


def read_frames(
    path: str | Path,
    indices: Sequence[int],
    info: VideoInfo | None = None,
    size: tuple[int, int] | None = None,
) -> np.ndarray:
    """Decodes the frames at `indices`.

    Args:
      path: video file.
      indices: frame numbers in display order, from 0, never decreasing; a number may be repeated.
      info: what `probe` found for this file; without it the file is probed first.
      size: (height, width) to resize frames to, bilinearly and antialiased; None: as they are.
        Done while converting from YUV to RGB, which costs far less than resizing afterwards.

    Returns:
      uint8 `[len(indices), H, W, 3]`, RGB, upright.

    Raises:
      VideoError: the file is unusable (see `probe`), corrupt, or ends before the last.
      ValueError: `indices` is empty, decreases, or lies outside the video.
    """
    info = info or probe(path)
    indices = np.asarray(indices)
    if indices.size == 0 or np.any(np.diff(indices) < 0):
        raise ValueError(f"indices must not decrease nor be empty: {indices.tolist()}")
    if indices[0] < 0 or indices[-1] >= info.num_frames:
        raise ValueError(f"{path}: indices {indices.tolist()} exceed its {info.num_frames} frames")
    size = size or (info.height, info.width)
    start = max((key for key in info.keyframes if key[0] <= indices[0]), default=None)
    found = _decode(path, set(indices.tolist()), size, start)
    if found is None:  # the keyframe was not where the packets said
        found = _decode(path, set(indices.tolist()), size, None)
    missing = set(indices.tolist()) - found.keys()
    if missing:
        raise VideoError(f"{path}: ends before frame {min(missing)} of {info.num_frames}")
    return np.stack([found[i] for i in indices.tolist()])


@contextmanager
def _opened(path: str | Path) -> Iterator[tuple]:
    """Yields the container and its best video stream; turns what goes wrong into VideoError."""
    if not Path(path).is_file():
        raise VideoError(f"{path}: no such file")
    if Path(path).stat().st_size == 0:
        raise VideoError(f"{path}: the file is empty")
    try:
        with av.open(str(path), **_TOLERANT) as container:
            stream = container.streams.best("video")
            if stream is None:
                raise VideoError(f"{path}: has no video stream")
            if stream.codec_context is None:
                raise VideoError(f"{path}: there is no decoder for its codec")
            stream.thread_count = 1  # files are read side by side instead
            yield container, stream
    except (av.FFmpegError, OSError) as error:
        reason = getattr(error, "strerror", None) or error
        raise VideoError(f"{path}: cannot be decoded, corrupt or encrypted ({reason})") from error


def _packet_times(container, stream) -> dict[int, bool]:
    """Presentation time of each packet -> is it a keyframe? Empty if packets are not frames."""
    if (
        container.format.name not in _TIMED_CONTAINERS
        or stream.codec_context.name in _UNTIMED_CODECS
    ):
        return {}
    packets = [packet for packet in container.demux(stream) if packet.size]
    times = {packet.pts: packet.is_keyframe for packet in packets}
    odd = any(packet.is_discard or packet.is_corrupt for packet in packets)
    return {} if odd or None in times or len(times) < len(packets) else times


def _frame_rate(stream, times: list[int]) -> float:
    if len(times) > 1:
        return float((len(times) - 1) / ((max(times) - min(times)) * stream.time_base))
    return float(stream.average_rate or 0)


def _decode(
    path: str | Path, wanted: set[int], size: tuple[int, int], start: tuple[int, int] | None
) -> dict[int, np.ndarray] | None:
    """Frame number -> pixels, decoding from keyframe `start`; None if no wanted frame comes."""
    found = {}
    with _opened(path) as (container, stream):
        frames = enumerate(container.decode(stream))
        if start is not None and start[0] > 0:
            container.seek(start[1], stream=stream)
            frames = _count_from(container.decode(stream), *start)
        converter = av.video.reformatter.VideoReformatter()  # one a file: making it is slow
        for number, frame in frames:
            if number in wanted:
                found[number] = _upright(frame, converter, size)
            if len(found) == len(wanted):
                break
    return found if found or start is None else None


def _count_from(frames: Iterator, number: int, time: int) -> Iterator[tuple[int, object]]:
    """Numbers frames from the one at `time`, which is frame `number`; nothing if there is none."""
    for frame in frames:
        if frame.pts == time:
            yield number, frame
            yield from enumerate(frames, number + 1)


def _quarter_turns(frame) -> int:
    """Quarter turns counter-clockwise that set a frame upright."""
    return frame.rotation // 90 % 4 if frame.rotation % 90 == 0 else 0


def _upright(frame, converter, size: tuple[int, int]) -> np.ndarray:
    """RGB `[H, W, 3]` of a frame, always of `size`, even where the stream changes its own."""
    turns = _quarter_turns(frame)
    height, width = size[::-1] if turns % 2 else size
    rgb = converter.reformat(frame, width=width, height=height, format="rgb24").to_ndarray()
    return np.rot90(rgb, turns)
