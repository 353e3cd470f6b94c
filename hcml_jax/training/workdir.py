"""A run's folder: which config, classes and clips it was made with."""

import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

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
)


def claim(workdir: pathlib.Path, **described: Any) -> None:
    """Makes `workdir` the folder of a run, or checks that it already is that run's.

    Args:
      workdir: the folder.
      **described: what makes it this run and no other: `config`, `classes`, `clip_shape`, `clips`; plain values.

    Raises:
      ConfigError: if it holds another run (the fields that differ are named), or cannot be written.
    """
    check(workdir, **described)
    if not claimed(workdir) and (workdir / "checkpoints").exists():
        raise ConfigError(
            f"--workdir {workdir} holds checkpoints but no run.json that tells of which run: name another folder"
        )
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        replace_text(workdir / "run.json", json.dumps(described, indent=1) + "\n")
    except OSError as error:
        raise ConfigError(f"--workdir {workdir} cannot be written: {error}") from error


def check_writable(workdir: pathlib.Path) -> None:
    """Raises ConfigError if `workdir` can be neither written nor made."""
    existing = next(path for path in (workdir, *workdir.absolute().parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        reason = "is read-only" if existing.is_dir() else "is no folder"
        raise ConfigError(f"--workdir {workdir} cannot be written: {existing} {reason}")


def claimed(workdir: pathlib.Path) -> bool:
    """Whether `workdir` is a run's folder."""
    return (workdir / "run.json").exists()


def check(workdir: pathlib.Path, **described: Any) -> None:
    """Raises ConfigError if `workdir` holds a run that differs in one of `described`, which is named."""
    if claimed(workdir):
        found = read(workdir)
        wanted = json.loads(json.dumps(described))
        _check_same(workdir, {name: found.get(name) for name in wanted}, wanted)


def read(workdir: pathlib.Path) -> dict[str, Any]:
    """What `claim` wrote.

    Raises:
      ConfigError: if there is none in `workdir`, or it is damaged.
    """
    path = workdir / "run.json"
    if not path.exists():
        raise ConfigError(f"{workdir} holds no run: {path} is not there")
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise ConfigError(f"{path} is damaged ({error}): name another folder") from error


def _check_same(workdir: pathlib.Path, found: Mapping, wanted: Mapping) -> None:
    found, wanted = _flatten(found), _flatten(wanted)
    differences = [
        f"{name}: {found.get(name)!r} there, {wanted.get(name)!r} now"
        for name in sorted(found.keys() | wanted.keys())
        if found.get(name) != wanted.get(name) and not _is_free(name)
    ]
    if differences:
        shown = "\n  ".join(differences[:8])
        raise ConfigError(
            f"--workdir {workdir} holds a run with another config or other clips; name another folder, or use "
            f"the same:\n  {shown}"
        )


def _is_free(name: str) -> bool:
    return any(name == free or name.startswith(f"{free}.") for free in FREE)


def _flatten(tree: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(tree, Mapping):
        return {prefix: tree}
    flat = {}
    for name, value in tree.items():
        flat |= _flatten(value, f"{prefix}.{name}" if prefix else name)
    return flat
