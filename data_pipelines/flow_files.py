"""Flow that was computed once, stored beside the videos: what the files hold, and at which frames clips may start.

`python -m hcml_jax.compute_flow` writes such a folder: `flow.json` says how it was computed; each video has a file of
its own, with flow in steps of 1/16 pixel from every `every`-th frame to the one `stride` frames later; and
`motion*.jsonl` tells how much the motion changes there (MSCL eq. 9).
"""

import io
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from zipfile import ZipFile

import numpy as np

from data_pipelines.errors import DataError
from hcml_jax.files import DAMAGED, new_file, replace_text

DESCRIPTION = "flow.json"
MOTION = "motion{}.jsonl"  # of each shard
STEPS = 16  # of a pixel: flow is stored to within 1/32 of one
LARGEST = (2**15 - 1) / STEPS


@dataclass(frozen=True)
class FlowDescription:
    """How the flow of a folder was computed.

    Attributes:
      provider: by what.
      stride: from the first frame of a pair to the second.
      every: from the first frame of a pair to that of the next pair.
      short_side: of the frames that were compared, in pixels; 0: as they are.
      scale: in pixels of these frames, the cells over which motion boundaries were averaged.
    """

    provider: str
    stride: int
    every: int
    short_side: int
    scale: int


def flow_name(root: str | Path, path: Path) -> str:
    """What the flow of a video is called in the folder: its path below the root, or all of it."""
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
        with ZipFile(path) as file:
            steps = np.load(io.BytesIO(file.read("flow.npy")))
    except DAMAGED as error:
        raise DataError(f"{path}: stored flow cannot be read ({error}); compute it again") from error
    return steps.astype(np.float32) / STEPS


def describe(folder: Path, description: FlowDescription) -> None:
    """Writes what a folder holds, or checks that it holds just that.

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
        return FlowDescription(**json.loads((folder / DESCRIPTION).read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise DataError(
            f"{folder} is no folder of computed flow ({error}): config.data.flow is 'truth', 'dis' or what "
            "`python -m hcml_jax.compute_flow` wrote"
        ) from error


def add_motion(folder: Path, shard: int, name: str, motion: np.ndarray) -> None:
    """Notes how much the motion of a video changes, `[N]`: from each pair of frames to the one a stride later."""
    values = [None if math.isnan(value) else round(float(value), 6) for value in motion]
    with (folder / MOTION.format(shard)).open("a") as file:
        # On a line of its own, also behind one that was cut short.
        file.write("\n" + json.dumps({"flow": name, "motion": values}) + "\n")


def read_motion(folder: Path) -> dict[str, np.ndarray]:
    """Name of a file -> how much the motion changes at each of its pairs, float32 `[N]`, NaN where it is not known.

    A line that was cut short is left out; so is what is not there any more.
    """
    found = {}
    for path in sorted(folder.glob(MOTION.format("*"))):
        for line in path.read_text().splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            found[entry["flow"]] = np.array([math.nan if v is None else v for v in entry["motion"]], np.float32)
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
        self._motion: Mapping[str, np.ndarray] = read_motion(folder)

    def starts(self, path: Path, segment: tuple[int, int], maps: int, moving: bool, loop: bool = False) -> np.ndarray:
        """Frames of a video at which a clip may start.

        Args:
          path: the video.
          segment: (first frame, one past the last) of which clips are taken.
          maps: flow maps of a clip, one after another by the stride.
          moving: whether only starts are meant where the motion changes more than at the median one (MSCL's motion
            differential sampling): the mean over the clip of `motion_difference`; all of them where none does.
          loop: whether a video that is too short begins again: it then has one start, the first.
        """
        stride, every = self.description.stride, self.description.every
        motion = self._motion.get(flow_name(self._root, path), np.zeros(0, np.float32))
        first = -(-segment[0] // every) * every
        last = min(segment[1] - 1 - maps * stride, (len(motion) - 1) * every - (maps - 1) * stride)
        starts = np.arange(first, last + 1, every)
        if loop and not len(starts) and first < len(motion) * every:
            return np.array([first])
        if not moving or not len(starts):
            return starts
        step = stride // every
        within = starts[:, None] // every + step * np.arange(max(maps - 1, 1))
        scores = motion[within].mean(1)
        approved = starts[scores > np.median(scores)]
        return approved if len(approved) else starts

    def read(self, path: Path, frames: np.ndarray) -> np.ndarray:
        """Flow from each of these frames of a video to the one a stride later, in pixels of the stored maps.

        Of frames that have none, in videos that begin again, it is that of the nearest before them.

        Raises:
          DataError: the file is missing or damaged.
        """
        flow = read_flow(self._folder / flow_name(self._root, path))
        return flow[np.minimum(frames // self.description.every, len(flow) - 1)]
