"""A run's folder: where its files lie, and which config, classes and clips it was made with."""

import dataclasses
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from flax.traverse_util import flatten_dict

from hcml_jax.config import ConfigError
from hcml_jax.files import replace_text

# What may change between two commands on one workdir without making it another run: no bit of training depends on it.
FREE = (
    "config.evaluation",
    "config.data.root",  # and `table`: the run knows its clips by their census
    "config.data.table",
    "config.data.workers",
    "config.data.cache_mb",
    "config.training.keep",
    "config.training.validate_on_reported",
)


@dataclasses.dataclass(frozen=True)
class Workdir:
    """The folder `path` of a run."""

    path: pathlib.Path

    @property
    def claimed(self) -> bool:
        """Whether it is a run's already."""
        return self._description.exists()

    @property
    def trained(self) -> bool:
        """Whether training has begun in it."""
        return (self.path / "checkpoints").exists()

    @property
    def results(self) -> pathlib.Path:
        """What evaluation found."""
        return self.path / "results.json"

    @property
    def per_video(self) -> pathlib.Path:
        """What each video adds to the scores."""
        return self.path / "per_video.npz"

    @property
    def report(self) -> pathlib.Path:
        """The page that shows it all."""
        return self.path / "report.html"

    @property
    def figures(self) -> pathlib.Path:
        """The folder of its pictures."""
        return self.path / "figures"

    @property
    def _description(self) -> pathlib.Path:
        return self.path / "run.json"

    def claim(self, **described: Any) -> None:
        """Makes it the folder of a run, or checks that it already is that run's.

        Args:
          **described: what makes it this run and no other: `config`, `classes`, `clip_shape`, `clips`; plain values.

        Raises:
          ConfigError: if it holds another run (the fields that differ are named), or cannot be written.
        """
        self.check(**described)
        if not self.claimed and self.trained:
            raise ConfigError(
                f"--workdir {self.path} holds checkpoints but no run.json that tells of which run: name another folder"
            )
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            replace_text(self._description, json.dumps(described, indent=1) + "\n")
        except OSError as error:
            raise ConfigError(f"--workdir {self.path} cannot be written: {error}") from error

    def check(self, **described: Any) -> None:
        """Raises ConfigError if it can be neither written nor made, or holds a run that differs in `described`."""
        existing = next(path for path in (self.path, *self.path.absolute().parents) if path.exists())
        if not existing.is_dir() or not os.access(existing, os.W_OK):
            reason = "is read-only" if existing.is_dir() else "is no folder"
            raise ConfigError(f"--workdir {self.path} cannot be written: {existing} {reason}")
        if self.claimed:
            found, wanted = self.read(), json.loads(json.dumps(described))
            self._check_same({name: found.get(name) for name in wanted}, wanted)

    def read(self) -> dict[str, Any]:
        """What `claim` wrote.

        Raises:
          ConfigError: if there is none, or it is damaged.
        """
        path = self._description
        if not path.exists():
            raise ConfigError(f"{self.path} holds no run: {path} is not there")
        try:
            return json.loads(path.read_text())
        except ValueError as error:
            raise ConfigError(f"{path} is damaged ({error}): name another folder") from error

    def _check_same(self, found: Mapping, wanted: Mapping) -> None:
        found, wanted = flatten_dict(found, sep="."), flatten_dict(wanted, sep=".")
        differences = [
            f"{name}: {found.get(name)!r} there, {wanted.get(name)!r} now"
            for name in sorted(found.keys() | wanted.keys())
            if found.get(name) != wanted.get(name) and not _is_free(name)
        ]
        if differences:
            shown = "\n  ".join(differences[:8])
            raise ConfigError(
                f"--workdir {self.path} holds a run with another config or other clips; name another folder, or use "
                f"the same:\n  {shown}"
            )


def _is_free(name: str) -> bool:
    return any(name == free or name.startswith(f"{free}.") for free in FREE)
