"""Reading clips from a prepared folder: only the frames of the clips are read, or only the video file."""

import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data_pipelines.errors import VideoError
from data_pipelines.images import cut_out
from data_pipelines.prepared.index import load_index
from data_pipelines.table import inside
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
        self._opened: dict[str, _Records] = {}
        self._opening = threading.Lock()

    def exists(self, path: Path) -> bool:
        """Whether this video was prepared."""
        return inside(self._folder, path) in self._index

    def info(self, path: Path) -> VideoInfo:
        """What is known of a video, without keyframes."""
        return self._index.of(inside(self._folder, path)).info

    def read_clips(self, path: Path, clips: Sequence[tuple[Sequence[int], Part]], info: VideoInfo) -> list[np.ndarray]:
        """See `data_pipelines.video.read_clips`."""
        stored = self._index.of(inside(self._folder, path), keyframes=True)
        records = self._records(stored.split)
        if not records.frames:
            from data_pipelines.video import read_clips  # needs PyAV

            return read_clips(Held(str(path), records[stored.first]), clips, stored.info)
        files = {int(i): records[stored.first + int(i)] for i in {i for indices, _ in clips for i in indices}}
        name = f"{path}, a frame"
        return [np.stack([cut_out(files[int(i)], *part, name) for i in indices]) for indices, part in clips]

    def _records(self, split: str) -> "_Records":
        with self._opening:
            if split not in self._opened:
                self._opened[split] = _Records(self._folder, split)
            return self._opened[split]


class _Records:
    """The JPEG frames, or the video files, of a split, by number.

    Records are parsed here: to have tensorflow-datasets decode all features takes a tenth of the time of a clip.
    """

    def __init__(self, folder: Path, split: str):
        import tensorflow_datasets as tfds
        from tensorflow_datasets.core.utils.lazy_imports_utils import array_record_data_source
        from tensorflow_datasets.proto import tf_example_pb2

        self._name = f"{folder}, split {split!r}"
        info = tfds.builder_from_directory(folder).info
        self.frames = "image" in info.features
        self._feature, self._parse = "image" if self.frames else "file", tf_example_pb2.Example.FromString
        self._source = array_record_data_source.ArrayRecordDataSource(info.splits[split].file_instructions)

    def __getitem__(self, number: int) -> bytes:
        try:
            return self._parse(self._source[number]).features.feature[self._feature].bytes_list.value[0]
        except Exception as error:  # the library raises many kinds
            raise VideoError(f"{self._name}: record {number} cannot be read ({error})") from error
