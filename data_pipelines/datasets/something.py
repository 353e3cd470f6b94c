"""Something-Something (Goyal et al., 2017), v1: lists in CSV, folders of JPEG files; v2: lists in JSON, WebM files."""

import json
from collections.abc import Iterator
from pathlib import Path

from data_pipelines.datasets.annotated import Annotated, Entry, annotate, find_file

CLASSES = 174

V1 = {"table": {"train": 86_017, "val": 11_522, "test": 10_960}}
V2 = {"table": {"train": 168_913, "val": 24_777, "test": 27_157}}
FILES = {"train": "train", "val": "validation", "test": "test"}


def read_v1(folder: Path) -> Annotated:
    """Version 1. Raises DataError: a list or all folders of frames are missing."""
    return annotate(folder, {"table": _entries_v1(folder)}, V1, CLASSES, frames=True)


def read_v2(folder: Path) -> Annotated:
    """Version 2. Raises DataError: a list or all videos are missing."""
    return annotate(folder, {"table": _entries_v2(folder)}, V2, CLASSES)


def _entries_v1(folder: Path) -> Iterator[Entry]:
    """Lines are "100218;Something falling like a feather or paper", in the list for testing the number alone."""
    for split, name in FILES.items():
        for line in find_file(folder, f"something-something-v1-{name}.csv").read_text().splitlines():
            video, _, label = line.strip().partition(";")
            if video:
                yield Entry(video, label, split)


def _entries_v2(folder: Path) -> Iterator[Entry]:
    """A template such as "Putting [something] on a surface" is the label, without brackets."""
    for split, name in FILES.items():
        path = find_file(folder, f"something-something-v2-{name}.json", f"{name}.json")  # two publications
        for told in json.loads(path.read_text()):
            yield Entry(str(told["id"]), told.get("template", "").replace("[", "").replace("]", ""), split)
