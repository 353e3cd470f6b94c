"""Whether a video can be used: all of it is decoded, and what its header tells is compared with what is there."""

import math
from pathlib import Path
from typing import NamedTuple

from data_pipelines.errors import VideoError
from data_pipelines.video_info import VideoInfo

OK, REPAIRED, BAD = "ok", "repaired", "bad"
VERDICTS = OK, REPAIRED, BAD
LEAST = 0.5  # share of a video's frames that must be readable


class Verdict(NamedTuple):
    """What `judge` finds.

    Attributes:
      verdict: "ok"; "repaired": it can be used, but not as its header tells; "bad": it cannot.
      reason: what is wrong with it, and what is used instead; "" if it is "ok".
      frames, height, width, fps: of what can be used; 0 if it is "bad".
      codec: its name; "" if it is not known.
      end: seconds up to which it can be read; infinite: to its end.
    """

    verdict: str
    reason: str
    frames: int = 0
    height: int = 0
    width: int = 0
    fps: float = 0.0
    codec: str = ""
    end: float = math.inf


class Decoded(NamedTuple):
    """What a decoder finds in a video that it decodes to its end.

    Attributes:
      frames: that could be decoded before a fault, if there is one.
      fault: what the decoder said of the next; "": nothing.
      told: frames by the file's header; 0: it tells none.
      in_order: whether the times of the frames rise.
      codec: its name.
    """

    frames: int
    fault: str
    told: int
    in_order: bool
    codec: str


def judge(path: str | Path) -> Verdict:
    """Decodes all frames of a video and says whether it can be used."""
    from data_pipelines.video import decode_all, probe  # needs PyAV

    try:
        info = probe(path)
    except VideoError as error:
        return Verdict(BAD, str(error))
    return verdict_on(path, info, decode_all(path, info))


def verdict_on(path: str | Path, info: VideoInfo, decoded: Decoded) -> Verdict:
    """The verdict on a video that was decoded."""
    found, codec = decoded.frames, decoded.codec
    size = info.height, info.width
    if found >= info.num_frames and not decoded.fault:
        told = _differences(decoded, info.num_frames)
        return Verdict(REPAIRED if told else OK, told and f"{path}: {told}", info.num_frames, *size, info.fps, codec)
    fault = decoded.fault or f"{path}: ends early"
    broken = f"{fault}, at frame {found} of {info.num_frames}"
    if found < LEAST * info.num_frames or not info.fps:
        return Verdict(BAD, broken, codec=codec)
    end = found / info.fps
    return Verdict(REPAIRED, f"{broken}; used up to {end:.2f} s", found, *size, info.fps, codec, end)


def _differences(decoded: Decoded, frames: int) -> str:
    """What a header tells otherwise than the frames that are there; "" if nothing."""
    faults = []
    if decoded.told and decoded.told != frames:
        faults.append(f"its header tells {decoded.told} frames; the {frames} that are there are used")
    if not decoded.in_order:
        faults.append("its times do not rise; frames are used in the order in which they are decoded")
    return "; ".join(faults)
