"""The annotation table (docs/data.md): which clips there are, their labels and splits.

Paths in it may be absolute. Messages count rows from 1, without the header.
"""

import csv
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data_pipelines.errors import DataError, TableError
from hcml_jax.config import nearest
from hcml_jax.files import new_file

TABLE = "table.csv"
VALIDATION = "validation"  # the split that `hold_out` makes
REQUIRED = ("path", "label", "split")
OPTIONAL = ("start", "end", "family", "flow")
VIDEO_ENDINGS = (
    *(".3gp", ".asf", ".avi", ".flv", ".gif", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4"),
    *(".mpeg", ".mpg", ".mts", ".ogv", ".ts", ".vob", ".webm", ".wmv", ".y4m"),
)
LISTED = 10  # at most so many faults are spelt out in one message


class Row(NamedTuple):
    """One clip of the table.

    Attributes:
      index: number of the row, from 0.
      path: video file, or a folder of images, one a frame.
      label: class name; empty where unlabelled.
      split: name of its split.
      start, end: part of the video, in seconds; where the table tells none, 0 and infinity: all of it.
      family: family of the class; may be empty.
      flow: .npz file with an array `flow`, `[T - 1, H, W, 2]`, of the whole video; or None.
    """

    index: int
    path: Path
    label: str
    split: str
    start: float = 0.0
    end: float = math.inf
    family: str = ""
    flow: Path | None = None


def read_table(root: str | Path, table: str | Path = "", exists: Callable[[Path], bool] | None = None) -> list[Row]:
    """Reads the table; without one, every video under `root` is an unlabelled clip of "train".

    Args:
      root: folder that relative paths start from.
      table: CSV file, relative to `root` or to the working directory, or absolute; empty: `table.csv` in `root`, if
        it is there.
      exists: whether a video is there; None: whether its file is.

    Raises:
      TableError: the folder or the table is missing or empty, a column is missing or unknown, a
        file is gone, a time is wrong, or a label never occurs in split "train", if there is one. Names the row.
    """
    root = Path(root)
    if not root.is_dir():
        raise TableError(f"{root}: no such folder of videos")
    if not table and not (root / TABLE).is_file():
        return _rows_of_folder(root)
    table = table or TABLE
    path = next((p for p in (root / table, Path(table)) if p.is_file()), None)
    if path is None:
        raise TableError(f"{root / table}: no such table; it is a CSV file with {_columns()}")
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            _check_columns(path, reader.fieldnames or [])
            rows = [_parse_row(path, root, i, fields) for i, fields in enumerate(reader)]
    except (UnicodeDecodeError, csv.Error) as error:
        raise TableError(f"{path}: is not a CSV file in UTF-8 ({error}); save it as one") from error
    if not rows:
        raise TableError(f"{path}: has a header but no rows")
    _check_files(path, rows, exists or _exists())
    _check_labels(path, rows)
    return rows


def write_table(path: Path, rows: Sequence[Row], root: str | Path) -> None:
    """Writes a table that `read_table` reads back: paths under `root` relative to it, other ones whole."""

    def name(file: Path | None) -> str:
        return "" if file is None else inside(root, file if file.is_relative_to(root) else file.absolute())

    def seconds(time: float) -> str:
        return repr(time) if 0 < time < math.inf else ""  # exactly: an end must not reach a frame further

    cells = {
        **{"path": lambda row: name(row.path), "label": lambda row: row.label, "split": lambda row: row.split},
        **{"start": lambda row: seconds(row.start), "end": lambda row: seconds(row.end)},
        **{"family": lambda row: row.family, "flow": lambda row: name(row.flow)},
    }
    columns = {column: [cell(row) for row in rows] for column, cell in cells.items()}
    used = {column: texts for column, texts in columns.items() if column in REQUIRED or any(texts)}
    with new_file(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(used)
        writer.writerows(zip(*used.values(), strict=True))


def inside(root: str | Path, path: Path) -> str:
    """The path relative to `root`, so that the folder can be moved; the whole path if it lies elsewhere."""
    return str(path.relative_to(root) if path.is_relative_to(root) else path)


def list_faults(faults: Sequence[str]) -> str:
    """The first faults, one a line, and how many more there are."""
    more = [f"... and {len(faults) - LISTED} more"] if len(faults) > LISTED else []
    return "".join(f"\n  {fault}" for fault in [*faults[:LISTED], *more])


def class_names(rows: Sequence[Row], order: Sequence[str] = (), known: Sequence[str] = ()) -> tuple[str, ...]:
    """Labels of split "train", or of all rows if there is no such split: first those in `order`, then by name.

    If all labels are among the classes `known` of a network that is evaluated, the result is `known`.
    """
    labels = {row.label for row in rows if row.label}
    if labels and labels <= set(known):
        return tuple(known)
    names = {row.label for row in rows if row.label and row.split == "train"}
    if not any(row.split == "train" for row in rows):
        names = labels
    return (*(name for name in order if name in names), *sorted(names - set(order)))


def class_families(rows: Sequence[Row]) -> dict[str, str]:
    """Family of each class that has one.

    Raises:
      TableError: a class has two families.
    """
    families: dict[str, str] = {}
    for row in rows:
        if row.label and row.family and families.setdefault(row.label, row.family) != row.family:
            pair = f"{families[row.label]!r} and {row.family!r}"
            raise TableError(f"row {row.index + 1}: label {row.label!r} has two families, {pair}")
    return families


def labelled_rows(rows: Sequence[Row], per_class: int, seed: int = 0) -> frozenset[int]:
    """Indices of the training rows whose label may be used in training.

    Args:
      rows: the table.
      per_class: number of rows of each class; 0: all that have a label.
      seed: seed of their choice.
    """
    order = np.random.default_rng(seed)
    of_class = {label: indices for label, indices in _training_rows(rows).items() if label}
    chosen = (order.permutation(indices)[: per_class or None] for indices in of_class.values())
    return frozenset(int(index) for indices in chosen for index in indices)


def hold_out(rows: Sequence[Row], share: float) -> list[Row]:
    """Move some rows of split "train", if there is one, to split "validation"; the random choice is always the same.

    Args:
      rows: the table.
      share: share of the training rows of each class, and of unlabelled ones, in [0, 1); at least one of each stays.

    Raises:
      DataError: there is a split "validation" already, or the share of every class is less than a row.
    """
    if any(row.split == VALIDATION for row in rows):
        raise DataError(f"validation_share: found {share}, but the table has a split {VALIDATION!r}: set it to 0")
    order, held, training = np.random.default_rng(1), set(), _training_rows(rows)
    for indices in training.values():
        count = min(round(share * len(indices)), len(indices) - 1)
        held.update(order.permutation(indices)[:count].tolist())
    if training and not held:
        raise DataError(f"validation_share: found {share}, which is less than a clip of any class")
    return [row._replace(split=VALIDATION) if row.index in held else row for row in rows]


def _training_rows(rows: Sequence[Row]) -> dict[str, list[int]]:
    """Indices of the training rows of each label, by name; of "" those without one."""
    of_label: dict[str, list[int]] = {}
    for row in rows:
        if row.split == "train":
            of_label.setdefault(row.label, []).append(row.index)
    return dict(sorted(of_label.items()))


def _columns() -> str:
    return f"columns {', '.join(REQUIRED)} and perhaps {', '.join(OPTIONAL)}"


def video_files(root: Path) -> list[Path]:
    """The video files in a folder and below, sorted.

    Raises:
      TableError: there are none.
    """
    files = sorted(p for p in root.rglob("[!.]*") if p.suffix.lower() in VIDEO_ENDINGS and p.is_file())
    if not files:
        raise TableError(f"{root}: has no video files (they end in {', '.join(VIDEO_ENDINGS)})")
    return files


def _rows_of_folder(root: Path) -> list[Row]:
    return [Row(i, path, "", "train") for i, path in enumerate(video_files(root))]


def _check_columns(path: Path, names: Sequence[str]) -> None:
    known = (*REQUIRED, *OPTIONAL)
    for name in names:
        if name not in known:
            raise TableError(f"{path}: unknown column {name!r}. {nearest(name, known)}")
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise TableError(f"{path}: column {twice[0]!r} occurs twice")
    missing = [name for name in REQUIRED if name not in names]
    if missing:
        raise TableError(f"{path}: column {missing[0]!r} is missing; a table has {_columns()}")


def _parse_row(path: Path, root: Path, index: int, fields: dict) -> Row:
    where = f"{path}, row {index + 1}"
    if None in fields or None in fields.values():
        raise TableError(f"{where}: has more or fewer cells than the header")
    fields = {name: text.strip() for name, text in fields.items()}
    for name in ("path", "split"):
        if not fields[name]:
            raise TableError(f"{where}: {name!r} is empty")
    start = _seconds(where, "start", fields.get("start"), 0.0)
    end = _seconds(where, "end", fields.get("end"), math.inf)
    if start >= end:
        raise TableError(f"{where}: start {start:g} s is not before end {end:g} s")
    flow = root / fields["flow"] if fields.get("flow") else None
    video, family = root / fields["path"], fields.get("family", "")
    return Row(index, video, fields["label"], fields["split"], start, end, family, flow)


def _seconds(where: str, name: str, text: str | None, default: float) -> float:
    if not text:
        return default
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise TableError(f"{where}: {name} must be a time in seconds from 0 up, found {text!r}")
    return value


def _exists() -> Callable[[Path], bool]:
    """Whether a file or folder is there: many of one folder are asked for, whose list is read once."""
    lists: dict[str, set[str]] = {}

    def exists(path: Path) -> bool:
        folder, name = os.path.split(path)
        if folder not in lists:
            lists[folder] = set(os.listdir(folder)) if os.path.isdir(folder) else set()
        return name in lists[folder]

    return exists


def _check_files(path: Path, rows: Sequence[Row], exists: Callable[[Path], bool]) -> None:
    gone = [f"row {row.index + 1}: {row.path}" for row in rows if not exists(row.path)]
    gone += [f"row {row.index + 1}: {row.flow}" for row in rows if row.flow and not row.flow.exists()]
    if gone:
        raise TableError(f"{path}: {len(gone)} files are gone:{list_faults(gone)}")


def _check_labels(path: Path, rows: Sequence[Row]) -> None:
    names = class_names(rows)
    known = set(names)
    for row in rows:
        if row.label and row.label not in known:
            raise TableError(
                f"{path}, row {row.index + 1}: label {row.label!r} of split {row.split!r} never "
                f"occurs in split 'train'. {nearest(row.label, names)}"
            )
