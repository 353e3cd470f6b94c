"""Reading clips from a prepared folder: only the frames of the clips are read, or only the video file."""

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines.images import cut_out
from data_pipelines.prepared.index import load_index
from data_pipelines.video_info import Held, Part, VideoInfo

MARK = "dataset_info.json"


def is_prepared(folder: str | Path) -> bool:
    """Whether a folder holds prepared videos."""
    return (Path(folder) / MARK).is_file()


class Prepared:
    """A prepared folder; a video's path is the folder joined with the video's name.

    Args:
      folder: as `python -m data_pipelines.prepare` prints it.

    Raises:
      DataError: it is damaged.
    """

    def __init__(self, folder: str | Path):
        self._folder = Path(folder)
        self._index = load_index(self._folder)
        self._opened: dict[str, Any] = {}
        self._opening = threading.Lock()

    def exists(self, path: Path) -> bool:
        """Whether this video was prepared."""
        return self._name(path) in self._index

    def info(self, path: Path) -> VideoInfo:
        """What is known of a video, without keyframes."""
        return self._index.of(self._name(path)).info

    def read_clips(self, path: Path, clips: Sequence[tuple[Sequence[int], Part]], info: VideoInfo) -> list[np.ndarray]:
        """See `data_pipelines.video.read_clips`."""
        stored = self._index.of(self._name(path), keyframes=True)
        records = self._records(stored.split)
        if "image" in records.dataset_info.features:
            wanted = {i for indices, _ in clips for i in indices}
            files = {int(i): records[stored.first + int(i)]["image"] for i in wanted}
            name = f"{path}, a frame"
            return [np.stack([cut_out(files[int(i)], *part, name) for i in indices]) for indices, part in clips]
        from data_pipelines.video import read_clips  # needs PyAV

        return read_clips(Held(str(path), records[stored.first]["file"]), clips, stored.info)

    def _records(self, split: str) -> Any:
        """The records of a split, by number."""
        with self._opening:
            if split not in self._opened:
                self._opened[split] = self._open(split)
            return self._opened[split]

    def _open(self, split: str) -> Any:
        import tensorflow_datasets as tfds

        builder = tfds.builder_from_directory(self._folder)
        decoders = {"image": tfds.decode.SkipDecoding()} if "image" in builder.info.features else None
        return builder.as_data_source(split=split, decoders=decoders)

    def _name(self, path: Path) -> str:
        return path.relative_to(self._folder).as_posix() if path.is_relative_to(self._folder) else str(path)
