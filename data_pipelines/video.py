"""Reading frames of video files with PyAV: any container and codec it knows, as upright RGB; or folders of images.

Frames are numbered in display order. MP4 and Matroska store a presentation time with every packet, so there packets are
counted, and reading starts at the keyframe before the first wanted frame. Elsewhere packets and frames need not match
(AVI may pack two frames into one packet, VP8 has frames that are never shown): those files are decoded once to count
the frames, and are read from their start unless all packets matched a frame. Pixels are taken as square.

Only what is wanted is worked on: frames to which no other refers are not decoded where their times tell their numbers,
and a part of a frame is cut out before it is resized and converted to RGB.
"""

import io
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import av
import av.filter
import numpy as np

from data_pipelines import frame_folder
from data_pipelines.errors import VideoError
from data_pipelines.verdict import Decoded
from data_pipelines.video_info import Held, Part, Size, Source, VideoInfo

_TIMED_CONTAINERS = {"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm"}
# Titles that are not UTF-8 do no harm; from version 19 on PyAV knows that by itself.
_TOLERANT = {"metadata_errors": "ignore"} if int(av.__version__.split(".")[0]) < 19 else {}
# In HEVC a frame that its own layer does not refer to may be one that a higher layer does.
_KNOWS_REFERENCES = {"h264", "mpeg4", "mpeg2video", "mpeg1video"}
_UNTIMED_CODECS = {"vp8", "libvpx"}  # hides frames in packets of their own


def probe(path: Source) -> VideoInfo:
    """Counts the frames of a video (headers often err) and decodes at least the first.

    Raises:
      VideoError: the file is missing, empty, no video, cut short (it ends before half of what its header tells), or its
        first frame (any frame, where packets do not tell the number of frames) cannot be decoded. Names file and
        reason.
    """
    if _is_folder(path):
        return frame_folder.probe(Path(path))
    with _opened(path) as (container, stream):
        times = _packet_times(container, stream)
        told = container.format.name in _TIMED_CONTAINERS and stream.codec_context.name not in _UNTIMED_CODECS
    with _opened(path) as (container, stream):
        frames = container.decode(stream)
        first = next(frames, None)
        if first is None:
            raise VideoError(f"{path}: has no frames")
        if told and times and first.pts == min(times):  # otherwise, frames without a keyframe come first
            shown = sorted(times)
        else:
            shown = [first.pts, *(frame.pts for frame in frames)]
            times = times if shown == sorted(times) else {}
        _check_length(path, container, stream, shown)
        width, height = first.width, first.height
        if _quarter_turns(first) % 2:
            width, height = height, width
        fps = _frame_rate(stream, list(times))
    order = {time: i for i, time in enumerate(shown)}
    keyframes = tuple((order[time], time) for time, is_key in times.items() if is_key)
    return VideoInfo(len(shown), width, height, fps, keyframes, *_rhythm(sorted(times)))


def decode_all(
    path: Source, info: VideoInfo, part: Part | None = None, use: Callable[[np.ndarray], None] | None = None
) -> Decoded:
    """Decodes every frame of a video, and keeps none.

    Args:
      path: the video.
      info: what `probe` found for it.
      part: of each frame that is given to `use`, uint8 `[H, W, 3]`, RGB.
      use: called with each frame, in order; None: frames are decoded alone.

    Raises:
      VideoError: the file cannot even be opened.
    """
    if _is_folder(path):
        count, fault = frame_folder.use_all(Path(path), info, part or info.whole, use or (lambda frame: None))
        return Decoded(count, fault, told=0, in_order=True, codec="images")
    count, last, in_order, fault, graphs = 0, None, True, "", {}
    with _opened(path) as (container, stream):
        told, codec = stream.frames, stream.codec_context.name
        try:
            for frame in container.decode(stream):
                if use is not None:
                    use(_cut_out(frame, part, info, graphs))
                in_order = in_order and frame.pts is not None and (last is None or frame.pts > last)
                count, last = count + 1, frame.pts
        except (av.FFmpegError, OSError) as error:
            fault = f"{path}: cannot be decoded ({_reason(error)})"
    return Decoded(count, fault, told, in_order, codec)


def read_frames(
    path: Source, indices: Sequence[int], info: VideoInfo | None = None, size: Size | None = None
) -> np.ndarray:
    """Decodes the frames at `indices`, of `size` or as they are: one clip of `read_clips`."""
    info = info or probe(path)
    return read_clips(path, [(indices, Part(info.whole.box, size or info.whole.size))], info)[0]


def read_clips(path: Source, clips: Sequence[tuple[Sequence[int], Part]], info: VideoInfo) -> list[np.ndarray]:
    """Decode clips of a video; clips share one pass of the decoder if seeking between them would skip nothing.

    Args:
      path: video file.
      clips: for each clip its frame numbers in display order, from 0, in any order; and which part of its frames.
      info: what `probe` found for this file.

    Returns:
      For each clip, uint8 `[len(indices), H, W, 3]`, RGB, upright.

    Raises:
      VideoError: the file is unusable (see `probe`), corrupt, or ends before the last.
      ValueError: a clip has no frames, or some outside the video.
    """
    clips = [(np.asarray(indices).tolist(), part) for indices, part in clips]
    for indices, _ in clips:
        if not indices or min(indices) < 0 or max(indices) >= info.num_frames:
            raise ValueError(f"{path}: indices {indices} must be some of its {info.num_frames} frames")
    if _is_folder(path):
        return frame_folder.read_clips(Path(path), clips, info)
    found = {}
    for start, wanted in _passes(clips, info):
        try:
            frames = _decode(path, wanted, info, start)
        except VideoError:
            frames = {}
        if wanted - frames.keys():  # a keyframe or a time was not where the packets said, or what is there is damaged
            frames = _decode(path, wanted, info, None)
        missing = wanted - frames.keys()
        if missing:
            raise VideoError(f"{path}: ends before frame {min(missing)[0]} of {info.num_frames}")
        found |= frames
    return [np.stack([found[i, part] for i in indices]) for indices, part in clips]


def _passes(clips: list[tuple[list[int], Part]], info: VideoInfo) -> list[tuple]:
    """(keyframe to start from, wanted {(frame number, part)}) of each run of the decoder."""
    passes, last = [], -1
    for indices, part in sorted(clips, key=lambda clip: min(clip[0])):
        start = max((key for key in info.keyframes if key[0] <= min(indices)), default=None)
        if not passes or (start is not None and start[0] > last):
            passes.append((start, set()))
        passes[-1][1].update((i, part) for i in indices)
        last = max(last, *indices)
    return passes


@contextmanager
def _opened(path: Source) -> Iterator[tuple]:
    """Yields the container and its best video stream; turns what goes wrong into VideoError."""
    held = isinstance(path, Held)
    if not held and not Path(path).is_file():
        raise VideoError(f"{path}: no such file")
    if not (path.content if held else Path(path).stat().st_size):
        raise VideoError(f"{path}: the file is empty")
    try:
        with av.open(io.BytesIO(path.content) if held else str(path), **_TOLERANT) as container:
            stream = container.streams.best("video")
            if stream is None:
                raise VideoError(f"{path}: has no video stream")
            if stream.codec_context is None:
                raise VideoError(f"{path}: there is no decoder for its codec")
            stream.thread_count = 1  # files are read side by side instead
            yield container, stream
    except (av.FFmpegError, OSError) as error:
        raise VideoError(f"{path}: cannot be decoded, corrupt or encrypted ({_reason(error)})") from error


def _is_folder(path: Source) -> bool:
    return not isinstance(path, Held) and Path(path).is_dir()


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


def _packet_times(container, stream) -> dict[int, bool]:
    """Presentation time of each packet -> is it a keyframe? Empty if packets are not frames."""
    packets = [packet for packet in container.demux(stream) if packet.size]
    times = {packet.pts: packet.is_keyframe for packet in packets}
    odd = any(packet.is_discard or packet.is_corrupt for packet in packets)
    return {} if odd or None in times or len(times) < len(packets) else times


def _check_length(path: Source, container, stream, times: list[int | None]) -> None:
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


def _rhythm(times: list[int]) -> tuple[int, int]:
    """(first time, step) of times in rising order; (0, 0) if they are not evenly spaced."""
    steps = set(np.diff(times).tolist())
    return (times[0], steps.pop()) if len(steps) == 1 else (0, 0)


def _decode(
    path: Source, wanted: set[tuple[int, Part]], info: VideoInfo, start: tuple[int, int] | None
) -> dict[tuple[int, Part], np.ndarray]:
    """(frame number, part) -> pixels, decoding from keyframe `start`; from the first frame on, and all, if None."""
    found, parts, graphs = {}, defaultdict(list), {}
    for number, part in wanted:
        parts[number].append(part)
    with _opened(path) as (container, stream):
        if start is None:
            frames = enumerate(container.decode(stream))
        else:
            if start[0] > 0:
                container.seek(start[1], stream=stream)
            evenly = info.step > 0
            frames = _at_times(container, stream, info, parts) if evenly else _count_from(container, stream, start)
        for number, frame in frames:
            for part in parts.get(number, ()):
                found[number, part] = _cut_out(frame, part, info, graphs)
            if len(found) == len(wanted):
                break
    return found


def _count_from(container, stream, start: tuple[int, int]) -> Iterator[tuple[int, object]]:
    """Numbers frames from the keyframe `start` on; nothing if it does not come."""
    number, time = start
    frames = container.decode(stream)
    for frame in frames:
        if frame.pts == time:
            yield number, frame
            yield from enumerate(frames, number + 1)


def _at_times(container, stream, info: VideoInfo, wanted: Iterable[int]) -> Iterator[tuple[int, object]]:
    """The frames of these numbers, by their times. The decoder passes over others that none refers to, if it knows."""
    may_skip = stream.codec_context.name in _KNOWS_REFERENCES
    numbers = {info.first_time + number * info.step: number for number in wanted}
    for count, packet in enumerate(container.demux(stream)):
        if not count and not packet.is_keyframe:  # the file has no index to seek by
            return
        unwanted = packet.pts is not None and packet.pts not in numbers
        stream.codec_context.skip_frame = "NONREF" if unwanted and may_skip else "DEFAULT"
        for frame in packet.decode():
            if frame.pts in numbers:
                yield numbers[frame.pts], frame


def _quarter_turns(frame) -> int:
    """Quarter turns counter-clockwise that set a frame upright."""
    return frame.rotation // 90 % 4 if frame.rotation % 90 == 0 else 0


def _cut_out(frame, part: Part, info: VideoInfo, graphs: dict) -> np.ndarray:
    """A part of a frame, RGB `[H, W, 3]`, upright; the stream may have changed its own size since `probe`."""
    turns = _quarter_turns(frame)
    key = part, turns, frame.width, frame.height, frame.format.name
    if key not in graphs:  # making one takes as long as some frames
        graphs[key] = _graph(frame, turns, part, info)
    graphs[key].push(frame)
    return np.rot90(graphs[key].pull().to_ndarray(), turns)


def _graph(frame, turns: int, part: Part, info: VideoInfo) -> av.filter.Graph:
    """Cuts a part out of frames like this one, resizes it and converts it to RGB."""
    box, size = part.box, (info.height, info.width)
    for _ in range(turns):  # back to how the frame is stored
        (top, left, height, width), size = box, size[::-1]
        box = left, size[1] - top - height, width, height
    down, across = (n / m for n, m in zip((frame.height, frame.width), size, strict=True))
    top, left, height, width = (round(n * scale) for n, scale in zip(box, (down, across, down, across), strict=True))
    height, width = max(height, 1), max(width, 1)
    rows, columns = part.size[::-1] if turns % 2 else part.size
    graph = av.filter.Graph()
    if hasattr(graph, "threads"):  # in newer versions of PyAV
        graph.threads = 1  # files are read side by side instead
    graph.link_nodes(
        graph.add_buffer(width=frame.width, height=frame.height, format=frame.format.name, time_base=frame.time_base),
        graph.add("crop", f"{width}:{height}:{left}:{top}:exact=1"),
        graph.add("scale", f"{columns}:{rows}:flags=bilinear"),
        graph.add("format", "rgb24"),
        graph.add("buffersink"),
    ).configure()
    return graph
