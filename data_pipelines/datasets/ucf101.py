"""UCF101 (Soomro et al., 2012): `ucfTrainTestlist/trainlist01.txt` to `testlist03.txt`, and the AVI files."""

from collections.abc import Iterator
from pathlib import Path

from data_pipelines.datasets.annotated import Annotated, Entry, annotate, find_file

CLASSES = 101
PUBLISHED = {
    "fold1": {"train": 9537, "test": 3783},
    "fold2": {"train": 9586, "test": 3734},
    "fold3": {"train": 9624, "test": 3696},
}


def read(folder: Path) -> Annotated:
    """The three folds. Raises DataError: a list or all videos are missing."""
    tables = {name: _entries(folder, fold) for fold, name in enumerate(PUBLISHED, 1)}
    return annotate(folder, tables, PUBLISHED, CLASSES)


def _entries(folder: Path, fold: int) -> Iterator[Entry]:
    """Lines are "ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi 1", in lists for testing without the number."""
    for split in ("train", "test"):
        for line in find_file(folder, f"{split}list{fold:02d}.txt").read_text().splitlines():
            if line.strip():
                video = line.split()[0].removesuffix(".avi")
                yield Entry(video, video.partition("/")[0], split)
