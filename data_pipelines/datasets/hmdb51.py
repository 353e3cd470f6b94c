"""HMDB51 (Kuehne et al., 2011): `testTrainMulti_7030_splits/<class>_test_split1.txt` to 3, and the AVI files."""

from collections.abc import Iterator
from pathlib import Path

from data_pipelines.datasets.annotated import Annotated, Entry, annotate, find_file

CLASSES = 51
PUBLISHED = {f"fold{fold}": {"train": 3570, "test": 1530} for fold in (1, 2, 3)}
SPLITS = {"1": "train", "2": "test"}  # "0": not used


def read(folder: Path) -> Annotated:
    """The three folds. Raises DataError: the lists or all videos are missing."""
    tables = {name: _entries(folder, fold) for fold, name in enumerate(PUBLISHED, 1)}
    return annotate(folder, tables, PUBLISHED, CLASSES)


def _entries(folder: Path, fold: int) -> Iterator[Entry]:
    """Lines are "April_09_brush_hair_u_nm_np1_ba_goo_0.avi 1"."""
    ending = f"_test_split{fold}.txt"
    for path in sorted(find_file(folder, f"*{ending}").parent.glob(f"*{ending}")):
        label = path.name.removesuffix(ending)
        for line in path.read_text().splitlines():
            video, _, number = line.strip().rpartition(" ")
            if number in SPLITS:
                yield Entry(f"{label}/{video.strip().removesuffix('.avi')}", label, SPLITS[number])
