"""Features on disk: those that one network or baseline extracts from a split's clips, shared by all protocols."""

import contextlib
import dataclasses
import functools
import json
import pathlib
import shutil
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from hcml_jax.config import UserError
from hcml_jax.files import DAMAGED, new_file, replace_text

PREFIX = "features/"


class FeatureError(UserError):
    """A file of features is damaged, or of something else than is asked for."""


@dataclasses.dataclass(frozen=True)
class Extracted:
    """Features of videos, read from disk on access.

    Attributes:
      arrays: as in a file of `FeatureFiles`.
      kept: int `[N]`, indices into the arrays, in the table's order.
    """

    arrays: Mapping[str, np.ndarray]
    kept: np.ndarray

    @classmethod
    def of(cls, arrays: Mapping[str, np.ndarray]) -> "Extracted":
        """All videos of the arrays.

        Raises:
          FeatureError: there are none.
        """
        if "index" not in arrays:
            raise FeatureError("there are no features: no labelled video of the split could be read")
        return cls(arrays, np.argsort(arrays["index"]))

    @functools.cached_property
    def index(self) -> np.ndarray:
        """int `[N]`: rows of the table."""
        return self.arrays["index"][self.kept]

    @functools.cached_property
    def labels(self) -> np.ndarray:
        """int `[N]`; -1 without a label."""
        return self.arrays["label"][self.kept]

    @property
    def names(self) -> list[str]:
        """Names of the features."""
        return [name.removeprefix(PREFIX) for name in self.arrays if name.startswith(PREFIX)]

    def feature(self, name: str) -> np.ndarray:
        """float32 `[N, C]`."""
        return self.arrays[PREFIX + name][self.kept]

    @property
    def logits(self) -> np.ndarray:
        """float32 `[N, V, classes]`, or `[N, V, R, classes]` of R classifiers."""
        return self.arrays["logits"][self.kept]

    def where(self, chosen: np.ndarray) -> "Extracted":
        """Select the videos of a mask, bool `[N]`."""
        return dataclasses.replace(self, kept=self.kept[chosen])


class FeatureFiles(Mapping):
    """A folder with `about.json`, which describes the source of the features, and files of clips, in any order.

    A file holds, for its N videos with V views each: "index" `[N]`, rows of the table; "video" `[N]`, names; "label"
    `[N]`, -1 without one; "start" `[N, V]` and "box" `[N, V, 4]`, what each view shows (see `Batch`); "features/NAME"
    `[N, C]`, float32, each, means over the views; "logits" `[N, V, classes]`, where there is a classifier. As a mapping
    it returns the joined arrays of all its files.

    Args:
      folder: its path; `claim` creates it.
    """

    def __init__(self, folder: pathlib.Path):
        self.folder = folder

    @property
    def about(self) -> dict[str, Any] | None:
        """Description of the features' source; None if there are no features.

        Raises:
          FeatureError: `about.json` is damaged.
        """
        path = self.folder / "about.json"
        if not path.exists():
            return None
        try:
            return json.loads(path.read_text())
        except (OSError, ValueError) as error:
            raise FeatureError(f"{path} is damaged ({error}): delete {self.folder} and evaluate again") from error

    def claim(self, about: Mapping[str, Any]) -> bool:
        """Assign the folder to these features; return whether it held others, which are then deleted."""
        about = json.loads(json.dumps(about))
        found = self.about
        if found != about:
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder.mkdir(parents=True)
            replace_text(self.folder / "about.json", json.dumps(about, indent=1) + "\n")
        return found not in (None, about)

    def write(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Adds a file of clips."""
        number = 1 + max((int(path.stem) for path in self._files), default=-1)
        with new_file(self.folder / f"{number:05}.npz") as partial, partial.open("wb") as file:
            np.savez(file, **arrays)

    def __getitem__(self, name: str) -> np.ndarray:
        parts = []
        for path in self._files:
            with _opened(path) as arrays:
                parts.append(arrays[name])
        if not parts:
            raise KeyError(name)
        return np.concatenate(parts)

    def __iter__(self) -> Iterator[str]:
        for path in self._files[:1]:
            with _opened(path) as arrays:
                yield from arrays

    def __len__(self) -> int:
        return len(list(iter(self)))

    @property
    def _files(self) -> list[pathlib.Path]:
        return sorted(self.folder.glob("[0-9]*.npz"))


@contextlib.contextmanager
def _opened(path: pathlib.Path) -> Iterator[Mapping[str, np.ndarray]]:
    """The arrays of a file, each read when it is asked for."""
    try:
        with path.open("rb") as file, np.load(file) as arrays:
            yield arrays
    except DAMAGED as error:
        raise FeatureError(
            f"{path}: features cannot be read ({error}): delete {path.parent} and evaluate again"
        ) from error
