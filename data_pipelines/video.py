"""Reading frames of video files with PyAV: any container and codec it knows, as upright RGB.

Frames are numbered in display order. MP4 and Matroska store a presentation time with every packet, so there packets are
counted, and reading starts at the keyframe before the first wanted frame. Elsewhere packets and frames need not match
(AVI packs two frames into one packet, VP8 has frames that are never shown): those files are decoded from their start,
once to count the frames and again at every reading. Pixels are taken as square.
"""

from collections import defaultdict
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

Size = tuple[int, int]  # (height, width)


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
      VideoError: the file is missing, empty, no video, cut short (it ends before half of what its header tells), or its
        first frame (any frame, where packets do not tell the number of frames) cannot be decoded. Names file and
        reason.
    """
    with _opened(path) as (container, stream):
        times = _packet_times(container, stream)
    with _opened(path) as (container, stream):
        frames = container.decode(stream)
        first = next(frames, None)
        if first is None:
            raise VideoError(f"{path}: has no frames")
        if times and first.pts != min(times):  # cut out of a longer video: frames without a keyframe come first
            times = {}
        shown = sorted(times) or [first.pts, *(frame.pts for frame in frames)]
        _check_length(path, container, stream, shown)
        width, height = first.width, first.height
        if _quarter_turns(first) % 2:
            width, height = height, width
        fps = _frame_rate(stream, list(times))
    order = {time: i for i, time in enumerate(shown)}
    keyframes = tuple((order[time], time) for time, is_key in times.items() if is_key)
    return VideoInfo(len(shown), width, height, fps, keyframes)


def read_frames(
    path: str | Path, indices: Sequence[int], info: VideoInfo | None = None, size: Size | None = None
) -> np.ndarray:
    """Decodes the frames at `indices`, of `size` or as they are: one clip of `read_clips`."""
    info = info or probe(path)
    return read_clips(path, [(indices, size or (info.height, info.width))], info)[0]


def read_clips(path: str | Path, clips: Sequence[tuple[Sequence[int], Size]], info: VideoInfo) -> list[np.ndarray]:
    """Decode clips of a video; clips share one pass of the decoder if seeking between them would skip nothing.

    Args:
      path: video file.
      clips: for each clip its frame numbers in display order, from 0, in any order; and the (height, width) to resize
        its frames to, bilinearly and antialiased. Done while converting from YUV to RGB, which costs far less than
        resizing afterwards.
      info: what `probe` found for this file.

    Returns:
      For each clip, uint8 `[len(indices), H, W, 3]`, RGB, upright.

    Raises:
      VideoError: the file is unusable (see `probe`), corrupt, or ends before the last.
      ValueError: a clip has no frames, or some outside the video.
    """
    clips = [(np.asarray(indices).tolist(), size) for indices, size in clips]
    for indices, _ in clips:
        if not indices or min(indices) < 0 or max(indices) >= info.num_frames:
            raise ValueError(f"{path}: indices {indices} must be some of its {info.num_frames} frames")
    found = {}
    for start, wanted in _passes(clips, info):
        frames = _decode(path, wanted, start)
        if frames is None:  # the keyframe was not where the packets said
            frames = _decode(path, wanted, None)
        missing = wanted - frames.keys()
        if missing:
            raise VideoError(f"{path}: ends before frame {min(missing)[0]} of {info.num_frames}")
        found |= frames
    return [np.stack([found[i, size] for i in indices]) for indices, size in clips]


def _passes(clips: list[tuple[list[int], Size]], info: VideoInfo) -> list[tuple]:
    """(keyframe to start from, wanted {(frame number, size)}) of each run of the decoder."""
    passes, last = [], -1
    for indices, size in sorted(clips, key=lambda clip: min(clip[0])):
        start = max((key for key in info.keyframes if key[0] <= min(indices)), default=None)
        if not passes or (start is not None and start[0] > last):
            passes.append((start, set()))
        passes[-1][1].update((i, size) for i in indices)
        last = max(last, *indices)
    return passes


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
    if container.format.name not in _TIMED_CONTAINERS or stream.codec_context.name in _UNTIMED_CODECS:
        return {}
    packets = [packet for packet in container.demux(stream) if packet.size]
    times = {packet.pts: packet.is_keyframe for packet in packets}
    odd = any(packet.is_discard or packet.is_corrupt for packet in packets)
    return {} if odd or None in times or len(times) < len(packets) else times


def _check_length(path: str | Path, container, stream, times: list[int | None]) -> None:
    """Raise VideoError if a file ends before half the length in its header; the decoder itself detects truncated MP4.

    Intact files can fall short of it too: AVI's header counts dropped frames, Matroska's includes longer sound.
    """
    told = found = 0
    if container.format.name == "avi":
        told, found = stream.frames, len(times)
    elif container.format.name == "matroska,webm" and container.duration and stream.average_rate and None not in times:
        told, found = container.duration / av.time_base, (max(times) - times[0]) * stream.time_base
        found += 1 / stream.average_rate  # the last frame is seen for a while
    if found < told / 2:
        raise VideoError(f"{path}: cut short, it ends at {float(found / told):.0%} of the length that its header tells")


def _frame_rate(stream, times: list[int]) -> float:
    if len(times) > 1:
        return float((len(times) - 1) / ((max(times) - min(times)) * stream.time_base))
    return float(stream.average_rate or 0)


def _decode(
    path: str | Path, wanted: set[tuple[int, Size]], start: tuple[int, int] | None
) -> dict[tuple[int, Size], np.ndarray] | None:
    """(frame number, size) -> pixels, decoding from keyframe `start`; None if no wanted frame comes."""
    found, sizes = {}, defaultdict(list)
    for number, size in wanted:
        sizes[number].append(size)
    with _opened(path) as (container, stream):
        frames = enumerate(container.decode(stream))
        if start is not None and start[0] > 0:
            container.seek(start[1], stream=stream)
            frames = _count_from(container.decode(stream), *start)
        converters = defaultdict(av.video.reformatter.VideoReformatter)  # making one is slow
        for number, frame in frames:
            for size in sizes.get(number, ()):
                found[number, size] = _upright(frame, converters[size], size)
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


def _upright(frame, converter, size: Size) -> np.ndarray:
    """RGB `[H, W, 3]` of a frame, always of `size`, even where the stream changes its own."""
    turns = _quarter_turns(frame)
    height, width = size[::-1] if turns % 2 else size
    rgb = converter.reformat(frame, width=width, height=height, format="rgb24").to_ndarray()
    return np.rot90(rgb, turns)
