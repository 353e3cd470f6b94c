"""Where each video of a prepared folder lies, and what is known of it: `index.npz`."""

import dataclasses
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from data_pipelines.errors import DataError
from data_pipelines.video_info import VideoInfo
from hcml_jax.files import DAMAGED, new_file

INDEX = "index.npz"


@dataclasses.dataclass(frozen=True)
class Stored:
    """A video of a prepared folder.

    Attributes:
      name: its path in the folder that it was read from.
      split: in whose shards it lies.
      first: number of its first record in that split.
      info: of what is stored.
    """

    name: str
    split: str
    first: int
    info: VideoInfo


class Index:
    """The videos of a prepared folder, by name; keeps arrays, so that hundreds of thousands are read in a second."""

    def __init__(self, arrays: dict[str, np.ndarray]):
        """`arrays`: as `save_index` writes them."""
        self._arrays = arrays
        self._numbers = {name: number for number, name in enumerate(arrays["names"].tolist())}
        self._splits = arrays["splits"].tolist()
        # Python's own numbers are read a hundred times faster than an array's.
        self._columns = {name: arrays[name].tolist() for name in ("split", "first", *_FIELDS, "ends")}

    def __contains__(self, name: str) -> bool:
        return name in self._numbers

    def __len__(self) -> int:
        return len(self._numbers)

    def of(self, name: str, keyframes: bool = False) -> Stored:
        """A video; its info has `keyframes` only if they are asked for."""
        number, columns = self._numbers[name], self._columns
        fields = {field: columns[field][number] for field in _FIELDS}
        if keyframes:
            start = columns["ends"][number - 1] if number else 0
            pairs = self._arrays["keyframes"][start : columns["ends"][number]].tolist()
            fields["keyframes"] = tuple(map(tuple, pairs))
        return Stored(name, self._splits[columns["split"][number]], columns["first"][number], VideoInfo(**fields))


_FIELDS = "num_frames", "width", "height", "fps", "first_time", "step"


def save_index(path: Path, videos: Iterable[Stored]) -> None:
    """Writes an index."""
    videos = list(videos)
    splits = sorted({video.split for video in videos})
    keyframes = [np.array(video.info.keyframes, np.int64).reshape(-1, 2) for video in videos]
    arrays = {field: np.array([getattr(video.info, field) for video in videos]) for field in _FIELDS}
    arrays |= {
        "names": np.array([video.name for video in videos]),
        "splits": np.array(splits),
        "split": np.array([splits.index(video.split) for video in videos], np.int32),
        "first": np.array([video.first for video in videos], np.int64),
        "keyframes": np.concatenate(keyframes),
        "ends": np.cumsum([len(frames) for frames in keyframes], dtype=np.int64),
    }
    with new_file(path) as partial, partial.open("wb") as file:
        np.savez(file, **arrays)


def load_index(folder: Path) -> Index:
    """The index of a prepared folder.

    Raises:
      DataError: it is missing or damaged.
    """
    try:
        with np.load(folder / INDEX) as file:
            return Index(dict(file))
    except DAMAGED as error:
        raise DataError(f"{folder / INDEX}: cannot be read ({error}); prepare the videos again") from error
