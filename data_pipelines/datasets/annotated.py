"""What the annotations of a dataset say, and the files of its folder that they speak of."""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from data_pipelines.errors import DataError
from data_pipelines.table import VIDEO_ENDINGS, Row


class Entry(NamedTuple):
    """A line of an annotation file.

    Attributes:
      video: its name, without ending; it may begin with the folder that it lies in.
      label: class name; "": the dataset does not tell it.
      split: "train", "val" or "test".
      also: another name that its video may have; "": none.
    """

    video: str
    label: str
    split: str
    also: str = ""


class Annotated(NamedTuple):
    """A dataset in a folder.

    Attributes:
      tables: name -> rows; there are several where a dataset has several folds.
      missing: videos that are annotated and not there.
      notes: what differs from what is published, a line each.
    """

    tables: dict[str, list[Row]]
    missing: list[str]
    notes: list[str]


def annotate(
    folder: Path,
    tables: Mapping[str, Iterable[Entry]],
    published: Mapping[str, Mapping[str, int]],
    classes: int,
    frames: bool = False,
) -> Annotated:
    """Finds the videos of annotations.

    Args:
      folder: searched with all below it.
      tables: name -> entries.
      published: name -> split -> number of its entries as published; {}: not known.
      classes: their number as published.
      frames: whether a video is a folder of JPEG files.

    Raises:
      DataError: not one of the videos is there.
    """
    videos, found, missing, notes = _Videos(folder, frames), {}, {}, []
    for name, given in tables.items():
        entries, found[name] = list(given), []
        classes_of = {entry.label for entry in entries}
        for entry in entries:
            if path := videos.find(entry.video, classes_of) or videos.find(entry.also, classes_of):
                found[name].append(Row(len(found[name]), path, entry.label, entry.split))
            else:
                missing[entry.video] = None
        notes += _differences(name, entries, published.get(name, {}), classes)
    if not any(found.values()):
        kind = "folders of frames" if frames else "videos"
        first = next(iter(missing), "")
        raise DataError(f"{folder}: not one of the {len(missing)} annotated {kind} lies in it, such as {first!r}")
    return Annotated(found, [*missing], notes)


def find_file(folder: Path, *names: str) -> Path:
    """The file of the first of these names that is in a folder or below; the nearest, where there are several.

    Raises:
      DataError: there is none.
    """
    for name in names:
        if found := sorted(folder.rglob(name), key=lambda path: (len(path.parts), path)):
            return found[0]
    told = " or ".join(names)
    raise DataError(f"{folder}: no file {told} in it or below; put the dataset's annotations there, as published")


class _Videos:
    """The videos of a folder and below, by name: files, or folders of JPEG files."""

    def __init__(self, folder: Path, frames: bool):
        if not folder.is_dir():
            raise DataError(f"{folder}: no such folder")
        self._of_stem: dict[str, list[Path]] = defaultdict(list)
        for path in sorted(folder.rglob("*")):
            if path.is_dir() if frames else path.suffix.lower() in VIDEO_ENDINGS and path.is_file():
                self._of_stem[path.name if frames else path.stem].append(path)

    def find(self, name: str, classes: Collection[str]) -> Path | None:
        """The video of a name: in the folder that the name begins with, or in one that is of no other class."""
        *folder, stem = name.split("/")
        found = self._of_stem.get(stem, [])
        if not folder:
            return next(iter(found), None)
        own = [path for path in found if path.parent.name == folder[-1]]
        others = [path for path in found if path.parent.name not in classes]
        return next(iter(own or others), None)


def _differences(name: str, entries: list[Entry], published: Mapping[str, int], classes: int) -> list[str]:
    counts = Counter(entry.split for entry in entries)
    notes = [
        f"{name}: {counts[split]} videos of split {split!r} are annotated; {count} are published"
        for split, count in published.items()
        if counts[split] != count
    ]
    labels = len({entry.label for entry in entries if entry.label})
    return notes + ([f"{name}: {labels} classes are annotated; {classes} are published"] if labels != classes else [])
