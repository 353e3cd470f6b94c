"""Kinetics-400 and -600 (Kay et al., 2017; Carreira et al., 2018): CSV or JSON lists, and clips cut by their times.

A clip is called `<youtube id>_<start>_<end>`, its times in six digits, as downloaders name it, or `<youtube id>`. Many
videos of the lists are gone: that clips are missing is usual.
"""

import csv
import json
from collections.abc import Iterator
from pathlib import Path

from data_pipelines.datasets.annotated import Annotated, Entry, annotate
from data_pipelines.errors import DataError

COLUMNS = {"youtube_id", "time_start", "time_end", "split"}
SPLITS = {"train": "train", "training": "train", "val": "val", "validate": "val", "validation": "val", "test": "test"}


def read_400(folder: Path) -> Annotated:
    """Kinetics-400. Raises DataError: the lists or all clips are missing."""
    return _read(folder, 400)


def read_600(folder: Path) -> Annotated:
    """Kinetics-600. Raises DataError: the lists or all clips are missing."""
    return _read(folder, 600)


def _read(folder: Path, classes: int) -> Annotated:
    entries = list(dict.fromkeys(entry for path in _lists(folder) for entry in _entries(path)))
    if not entries:
        raise DataError(
            f"{folder}: no lists of Kinetics in it or below: CSV files with columns {', '.join(sorted(COLUMNS))} and "
            "label, or JSON files, as published"
        )
    return annotate(folder, {"table": entries}, {}, classes)


def _lists(folder: Path) -> list[Path]:
    return sorted([*folder.rglob("*.csv"), *folder.rglob("*.json")])


def _entries(path: Path) -> Iterator[Entry]:
    """The entries of a list; none if it is something else."""
    try:
        told = list(_told_by_csv(path) if path.suffix == ".csv" else _told_by_json(path))
    except (ValueError, csv.Error):  # no list of Kinetics
        return
    for video, start, end, label, split in told:
        if split not in SPLITS:
            raise DataError(f"{path}: split {split!r} of {video} is none of {', '.join(SPLITS)}")
        name = f"{video}_{int(float(start)):06d}_{int(float(end)):06d}"
        yield Entry(name, label or "", SPLITS[split], also=video)


def _told_by_csv(path: Path) -> Iterator[tuple]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        if set(reader.fieldnames or ()) >= COLUMNS:
            for row in reader:
                yield row["youtube_id"], row["time_start"], row["time_end"], row.get("label"), row["split"]


def _told_by_json(path: Path) -> Iterator[tuple]:
    found = json.loads(path.read_text())
    for video, told in found.items() if isinstance(found, dict) else ():
        if isinstance(told, dict) and "subset" in told:
            about = told.get("annotations", {})
            yield video, *about.get("segment", (0, 0)), about.get("label"), told["subset"]
