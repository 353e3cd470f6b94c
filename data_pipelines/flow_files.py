"""Flow that was computed once, stored beside the videos: what the files hold, and at which frames clips may start.

`python -m hcml_jax.compute_flow` writes such a folder: `flow.json` says how it was computed; each video has a file of
its own, with flow in steps of 1/16 pixel from every `every`-th frame to the one `over` frames later; and
`motion*.jsonl` tells of each video what it was, and how much its motion changes at these frames (MSCL eq. 9).
"""

import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from data_pipelines.errors import DataError
from hcml_jax.files import DAMAGED, new_file, read_array, replace_text

DESCRIPTION = "flow.json"
MOTION = "motion{}.jsonl"  # of each shard
STEPS = 16  # of a pixel: flow is stored to within 1/32 of one
LARGEST = (2**15 - 1) / STEPS


@dataclass(frozen=True)
class FlowDescription:
    """How the flow of a folder was computed.

    Attributes:
      provider: method that computed it.
      stride: stride of the clips that it is for.
      over: frames from the first frame of a pair to the second.
      every: frames from the first frame of a pair to that of the next pair.
      short_side: shorter side of the frames that were compared, in pixels; 0: as they are.
      scale: side, in pixels of these frames, of the cells over which motion boundaries were averaged.
      weighting: how motion boundaries weight the change of motion.
    """

    provider: str
    stride: int
    over: int
    every: int
    short_side: int
    scale: int
    weighting: str


@dataclass(frozen=True)
class VideoMotion:
    """A folder's record of a video.

    Attributes:
      flow: name of its file.
      size: of the video's file, in bytes.
      frames, height, width: of the video; 0 where it could not be read.
      motion: how much the motion changes from each pair of frames to the one a stride later; None where there is none.
      fault: why it has no flow; "": it has.
    """

    flow: str
    size: int
    frames: int = 0
    height: int = 0
    width: int = 0
    motion: tuple[float | None, ...] = ()
    fault: str = ""


def flow_name(root: str | Path, path: Path) -> str:
    """The name of a video's flow file in the folder: its path relative to the root, or its whole path."""
    root, path = (Path(os.path.abspath(each)) for each in (root, path))
    inside = path.relative_to(root) if path.is_relative_to(root) else path.relative_to(path.anchor)
    return f"{inside.as_posix()}.npz"


def save_flow(path: Path, flow: np.ndarray) -> None:
    """Writes flow `[N, H, W, 2]` in pixels of its own frames, to within 1/32 pixel, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    steps = np.round(np.clip(np.nan_to_num(flow), -LARGEST, LARGEST) * STEPS).astype(np.int16)
    with new_file(path) as partial, open(partial, "wb") as file:
        np.savez_compressed(file, flow=steps)


def read_flow(path: Path) -> np.ndarray:
    """What `save_flow` wrote: float32 `[N, H, W, 2]`.

    Raises:
      DataError: the file is missing or damaged.
    """
    try:
        steps = read_array(path, "flow")
    except DAMAGED as error:
        raise DataError(f"{path}: stored flow cannot be read ({error}); compute it again") from error
    return steps.astype(np.float32) / STEPS


def describe(folder: Path, description: FlowDescription) -> None:
    """Write the description of a folder, or check that it already has the same one.

    Raises:
      DataError: it holds flow that was computed otherwise.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / DESCRIPTION).exists() and (found := read_description(folder)) != description:
        raise DataError(f"{folder} holds flow computed otherwise, {found}: name another folder")
    replace_text(folder / DESCRIPTION, json.dumps(asdict(description), indent=1) + "\n")


def read_description(folder: Path) -> FlowDescription:
    """How the flow of a folder was computed.

    Raises:
      DataError: it is no such folder.
    """
    try:
        found = json.loads((folder / DESCRIPTION).read_text())
        return FlowDescription(**{"over": found["stride"], "weighting": "softmax"} | found)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DataError(
            f"{folder} is no folder of computed flow ({error}): config.data.flow is 'truth', 'dis', 'raft:DIR', "
            "'hcml:DIR' or what `python -m hcml_jax.compute_flow` wrote"
        ) from error


def add_motion(folder: Path, shard: int, entry: VideoMotion) -> None:
    """Append the record of a video; NaN is stored as None."""
    motion = [None if value is None or math.isnan(value) else round(float(value), 6) for value in entry.motion]
    with (folder / MOTION.format(shard)).open("a") as file:
        # On a line of its own, also behind one that was cut short.
        file.write("\n" + json.dumps(asdict(entry) | {"motion": motion}) + "\n")


def read_motion(folder: Path) -> dict[str, VideoMotion]:
    """Name of a flow file -> the last record of its video; truncated lines are skipped."""
    found = {}
    for path in sorted(folder.glob(MOTION.format("*"))):
        for line in path.read_text().splitlines():
            try:
                entry = VideoMotion(**json.loads(line))
            except (ValueError, TypeError):
                continue
            found[entry.flow] = entry
    return found


class FlowFiles:
    """The flow of a folder, by video.

    Attributes:
      description: how it was computed.
    """

    def __init__(self, folder: Path, root: str | Path):
        """Raises DataError if `folder` holds no computed flow; `root` is the videos'."""
        self.description = read_description(folder)
        self._folder, self._root = folder, root
        self._videos: Mapping[str, VideoMotion] = read_motion(folder)

    def left_out(self, path: Path) -> str | None:
        """Why the computation of flow left out a video; None if it did not."""
        entry = self._videos.get(flow_name(self._root, path))
        return f"{path}: has no flow in {self._folder} ({entry.fault})" if entry and entry.fault else None

    def fault(self, path: Path, video: tuple[int, int, int]) -> str | None:
        """Why there is no flow of a video of so many frames, rows and columns; None if there is."""
        name = flow_name(self._root, path)
        entry = self._videos.get(name)
        if entry is None or entry.fault or not (self._folder / name).exists():
            return self.left_out(path) or f"{path}: {self._folder} holds no flow of it; compute it"
        if (found := (entry.frames, entry.height, entry.width)) != video:
            return f"{path}: flow was computed of {_told(found)}, the video has {_told(video)}; compute it again"
        return None

    def starts(self, path: Path, segment: tuple[int, int], maps: int, moving: bool, loop: bool = False) -> np.ndarray:
        """Frames of a video at which a clip may start.

        Args:
          path: the video.
          segment: (first frame, one past the last) from which clips are taken.
          maps: number of flow maps of a clip, one stride apart.
          moving: whether to return only the starts at which the motion changes more than at the median one (MSCL's
            motion differential sampling), by the mean of `motion_difference` over the clip; all starts if none does.
          loop: whether a video that is too short is looped: it then has one start, the first.
        """
        stride, every = self.description.stride, self.description.every
        motion = self._motion(path)
        first = -(-segment[0] // every) * every
        last = (maps - 1) * stride  # map, from the start on
        span = max(maps * stride, last + self.description.over)
        last = min(segment[1] - 1 - span, (len(motion) - 1) * every - last)
        starts = np.arange(first, last + 1, every)
        if loop and not len(starts) and first < len(motion) * every:
            return np.array([first])
        if not moving or not len(starts):
            return starts
        within = starts[:, None] // every + stride // every * np.arange(max(maps - 1, 1))
        scores = motion[within].mean(1)
        known = scores[~np.isnan(scores)]
        approved = starts[scores > np.median(known)] if len(known) else starts
        return approved if len(approved) else starts

    def read(self, path: Path) -> np.ndarray:
        """The flow maps of a video, float32 `[N, H, W, 2]`, in pixels of their own.

        Raises:
          DataError: the file is missing or damaged, or is not the one that was noted.
        """
        file = self._folder / flow_name(self._root, path)
        flow, noted = read_flow(file), len(self._motion(path))
        if len(flow) != noted:
            raise DataError(f"{file}: holds {len(flow)} flow maps where {noted} were computed; compute it again")
        return flow

    def rows(self, frames: np.ndarray, maps: int) -> np.ndarray:
        """Indices of a video's flow maps from these frames; a frame without one, in a looped video, gets the last map
        before it."""
        return np.minimum(frames // self.description.every, maps - 1)

    def _motion(self, path: Path) -> np.ndarray:
        """Float32 `[N]`, NaN where it is not known."""
        entry = self._videos.get(flow_name(self._root, path))
        return np.array([math.nan if value is None else value for value in (entry.motion if entry else ())], np.float32)


def _told(video: tuple[int, int, int]) -> str:
    return "{} frames of {} x {}".format(*video)
