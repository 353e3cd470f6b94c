"""Checkpoints in Orbax: asynchronous, atomic; the last few, the best, and the end of every stage are kept."""

import contextlib
import dataclasses
import errno
import hashlib
import json
import os
import pathlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from orbax.checkpoint import v1 as ocp

from hcml_jax import cluster
from hcml_jax.config import UserError
from hcml_jax.training.fingerprint import fingerprints
from hcml_jax.training.freezing import path_names

LAYOUT = 1  # of what a checkpoint holds: raise it when older ones can no longer be read
ROOM = 1.2  # free bytes that a save asks for, for each byte of the state


class CheckpointError(UserError, RuntimeError):
    """A checkpoint is missing, another model's, or cannot be read or written; the message names it."""


class _AnotherModelError(CheckpointError):
    """The checkpoint is whole, but not of this model."""


@dataclasses.dataclass(frozen=True)
class Position:
    """Where in a run a checkpoint was taken.

    Attributes:
      step: steps of the whole run.
      stage: name of the stage.
      stage_step: steps of that stage.
      complete: whether the stage ended there.
      window: metrics of the steps since the last record of them.
    """

    step: int
    stage: str
    stage_step: int
    complete: bool
    window: Sequence[Mapping[str, float]] = ()


class Checkpoints:
    """The checkpoints of a run, under `directory`.

    Args:
      directory: where they are.
      keep: how many of the last ones stay.
      writes: whether this is the run itself, which clears away what an interrupted save left; readers must not, since
        the run may be saving.

    Raises:
      CheckpointError: if the loss of one cannot be read.
    """

    def __init__(self, directory: pathlib.Path, keep: int = 2, *, writes: bool = False):
        _check_losses(directory)
        self._checkpointer = ocp.training.Checkpointer(
            directory.absolute(),
            preservation_policy=_KeepBestAndEnds(keep),
            save_decision_policy=ocp.training.save_decision_policies.FixedIntervalPolicy(1),
            cleanup_tmp_directories=writes,
        )

    def __enter__(self):
        return self

    def __exit__(self, kind, *error):
        failed = contextlib.suppress(CheckpointError) if kind else contextlib.nullcontext()
        with failed, self._writing():
            self._checkpointer.close()

    @property
    def latest(self) -> Position | None:
        """Where the last checkpoint was taken, once it is written; None if there is none.

        Raises:
          CheckpointError: if what is known of the last one cannot be read.
        """
        with self._telling():
            self._checkpointer.wait()
        return next(self._newest_first(), None)

    @property
    def positions(self) -> list[Position]:
        """Where the checkpoints were taken, in order."""
        return list(self._newest_first())[::-1]

    def save(
        self, position: Position, state: Any, loss: float | None, *, needed: bool = False
    ) -> None:
        """Saves in the background.

        A checkpoint that cannot be written is told of, and the run goes on without it.

        Args:
          position: where the run stands.
          state: what to save.
          loss: decides which checkpoint of a stage is its best; None: not this one.
          needed: whether the run is not to go on without it; it is saved in the foreground.

        Raises:
          CheckpointError: if it is needed, and cannot be written.
        """
        with self._telling():
            self._checkpointer.wait()
        with self._writing() if needed else self._telling():
            self._check_room(state)
            self._begin_saving(position, state, loss)
            if needed:
                self._checkpointer.wait()

    def _check_room(self, state: Any) -> None:
        """Raises OSError if the disk lacks the room for a state: begun, saves of several processes would hang."""
        needed = sum(x.nbytes for x in jax.tree.leaves(state))
        if not cluster.of_first(cluster.is_first() and self._has_room(ROOM * needed)):
            raise OSError(errno.ENOSPC, f"no room for {needed / 2**20:,.1f} MiB")

    def _has_room(self, size: float) -> bool:
        """Whether so many bytes are free, once what failed saves have left is gone."""
        for remains in self._checkpointer.directory.glob("*.orbax-checkpoint-tmp"):
            shutil.rmtree(remains, ignore_errors=True)
        try:
            return shutil.disk_usage(self._checkpointer.directory).free > size
        except OSError:
            return False

    def _begin_saving(self, position: Position, state: Any, loss: float | None) -> None:
        told = {"loss": loss, "stage": position.stage, "complete": position.complete}
        known = {
            "layout": LAYOUT,
            "position": dataclasses.asdict(position),
            "fingerprints": fingerprints(state),
        }
        # A copy: the next step consumes the state's buffers while they are still being written.
        self._checkpointer.save_async(
            position.step,
            jax.tree.map(jnp.copy, state),
            metrics=None if loss is None else told,
            custom_metadata=known | {"digest": _digest(known)},
            overwrite=True,  # of remains that `_newest_first` passes over
        )

    @contextlib.contextmanager
    def _telling(self):
        """Tells of a failure to write, and goes on."""
        try:
            with self._writing():
                yield
        except CheckpointError as error:
            cluster.say(f"[checkpoint] {error}\n[checkpoint] the run goes on without it")

    @contextlib.contextmanager
    def _writing(self):
        """Makes a failure to write, also of a save in the background, a CheckpointError."""
        try:
            yield
        except (OSError, ValueError) as error:
            raise CheckpointError(
                f"a checkpoint cannot be written to {self._checkpointer.directory} (is the disk full?); those saved "
                f"before are whole, and the same command goes on from the last one: {error}"
            ) from error

    def restore(self, position: Position, abstract_state: Any) -> Any:
        """Loads the state saved at `position` into the shapes and shardings of `abstract_state`.

        Raises:
          CheckpointError: if it cannot be read, or holds another model.
        """
        with self._reading(position) as (path, saved):
            _check_same_model(path, saved.metadata, abstract_state)
            state = self._checkpointer.load(position.step, abstract_state)
            _check_same_bits(saved.custom_metadata["fingerprints"], fingerprints(state))
            return state

    def restore_variables(self, position: Position, abstract_variables: Any) -> Any:
        """Loads the variables alone, without optimizer state.

        Raises:
          CheckpointError: if they cannot be read, or are another model's.
        """
        with self._reading(position) as (path, saved):
            _check_same_model(path, saved.metadata["variables"], abstract_variables)
            placeholders = jax.tree.map(lambda leaf: ocp.PLACEHOLDER, saved.metadata)
            wanted = {**placeholders, "variables": abstract_variables}
            variables = self._checkpointer.load(position.step, wanted)["variables"]
            found = fingerprints({"variables": variables})
            _check_same_bits(saved.custom_metadata["fingerprints"], found)
            return variables

    @contextlib.contextmanager
    def _reading(self, position: Position):
        """The path of a checkpoint and what is known of it; makes a failure to read it a CheckpointError."""
        path = self._checkpointer.directory / str(position.step)
        try:
            saved = self._checkpointer.metadata(position.step)
            _check_whole(saved)
            yield path, saved
        except _AnotherModelError:
            raise
        except Exception as error:  # Orbax raises whatever the libraries below it raise
            raise CheckpointError(
                f"checkpoint {path} cannot be read: {error}{self._offer(position.step)}"
            ) from error

    def _offer(self, step: int) -> str:
        """What to do without the checkpoint of `step`."""
        for info in reversed(self._checkpointer.checkpoints):
            if info.step < step:
                with contextlib.suppress(Exception):  # as unreadable as the one asked for
                    self._position(info.step)
                    return f"\nTo go on from the one before it, of step {info.step}, move {step} out of the folder"
        return ""

    def _newest_first(self) -> Iterator[Position]:
        """Of all checkpoints; but for the newest, those that cannot be read are what a deletion has left.

        Raises:
          CheckpointError: if what is known of the newest cannot be read.
        """
        newest = True
        for info in reversed(self._checkpointer.checkpoints):
            path = self._checkpointer.directory / str(info.step)
            try:
                yield self._position(info.step)
            except Exception as error:
                if newest and any(files for _, _, files in os.walk(path)):
                    raise CheckpointError(
                        f"checkpoint {path} cannot be read: {error}{self._offer(info.step)}"
                    ) from error
                continue
            newest = False

    def _position(self, step: int) -> Position:
        known = dict(self._checkpointer.metadata(step).custom_metadata or {})
        if known.get("layout") != LAYOUT:
            raise CheckpointError(
                f"it has layout {known.get('layout')}; this version reads layout {LAYOUT}"
            )
        if known.pop("digest") != _digest(known):
            raise CheckpointError("what is known of it is not what was written")
        return Position(**known["position"])


class _KeepBestAndEnds:
    """Preserves the last `keep` checkpoints, the ends of stages, and the best of the stage under way."""

    def __init__(self, keep: int):
        self._keep = keep

    def should_preserve(self, checkpoints, *, context):
        del context
        last = {info.step for info in checkpoints[-self._keep :]}
        ends = {info.step for info in checkpoints if (info.metrics or {}).get("complete")}
        return [info.step in last | ends | _best(checkpoints) for info in checkpoints]


def _best(checkpoints) -> set[int]:
    known = [info for info in checkpoints if info.metrics]
    current = [info for info in known if info.metrics["stage"] == known[-1].metrics["stage"]]
    return {min(current, key=lambda info: info.metrics["loss"]).step} if current else set()


def _check_losses(directory: pathlib.Path) -> None:
    """Raises CheckpointError, naming the checkpoint, where Orbax would fail at all of them."""
    for path in directory.glob("*/metrics/metrics"):
        try:
            json.loads(path.read_text())
        except ValueError as error:
            damaged = path.parent.parent
            raise CheckpointError(
                f"checkpoint {damaged} cannot be read: {path} is damaged ({error})\nTo go on from the one before it, "
                f"move {damaged.name} out of the folder"
            ) from error


def _digest(known: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()


def _check_whole(saved: Any) -> None:
    gone = sorted(saved.custom_metadata["fingerprints"].keys() - _shapes(saved.metadata).keys())
    if gone:
        raise CheckpointError(f"{len(gone)} arrays are gone: {gone[:5]}")


def _check_same_model(path, saved: Any, wanted: Any) -> None:
    """Raises CheckpointError, naming arrays, unless both trees hold arrays of the same names and shapes."""
    found, expected = _shapes(saved), _shapes(wanted)
    differences = [
        f"{name}: {found.get(name, 'absent')} in the checkpoint, {expected.get(name, 'absent')} here"
        for name in sorted(found.keys() | expected.keys())
        if found.get(name) != expected.get(name)
    ]
    if differences:
        shown = "\n  ".join(differences[:5])
        raise _AnotherModelError(
            f"checkpoint {path} is of another model ({len(differences)} arrays differ):\n  {shown}"
        )


def _check_same_bits(written: Mapping[str, int], read: Mapping[str, int]) -> None:
    changed = [name for name, value in read.items() if written[name] != value]
    if changed:
        raise CheckpointError(f"{len(changed)} arrays are not what was written: {changed[:5]}")


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {"/".join(path_names(path)): tuple(leaf.shape) for path, leaf in leaves}
