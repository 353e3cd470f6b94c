"""Diving48 (Li et al., 2018), by its second labels: `Diving48_V2_train.json`, `_test.json`, `Diving48_vocab.json`."""

import json
from collections.abc import Iterator
from pathlib import Path

from data_pipelines.datasets.annotated import Annotated, Entry, annotate, find_file
from data_pipelines.errors import DataError

CLASSES = 48
PUBLISHED = {"table": {"train": 15_027, "test": 1_970}}


def read(folder: Path) -> Annotated:
    """Both splits.

    Raises:
      DataError: a list or all videos are missing, or only the first labels are there, which are known to err.
    """
    if any(folder.rglob("Diving48_train.json")) and not any(folder.rglob("Diving48_V2_train.json")):
        raise DataError(f"{folder}: has the first labels of Diving48, which err; put Diving48_V2_*.json there")
    return annotate(folder, {"table": _entries(folder)}, PUBLISHED, CLASSES)


def _entries(folder: Path) -> Iterator[Entry]:
    """A class is a dive, such as "Back 15som 05Twis FREE"."""
    path = find_file(folder, "Diving48_vocab.json")
    names = [" ".join(parts) for parts in json.loads(path.read_text())]
    if len(names) != CLASSES:
        raise DataError(f"{path}: names {len(names)} classes, and Diving48 has {CLASSES}")
    for split in ("train", "test"):
        path = find_file(folder, f"Diving48_V2_{split}.json")
        for told in json.loads(path.read_text()):
            if not 0 <= told["label"] < CLASSES:
                raise DataError(f"{path}: label {told['label']} of {told['vid_name']} must be in 0..{CLASSES - 1}")
            yield Entry(told["vid_name"], names[told["label"]], split)
