"""Checkpoints in Orbax: asynchronous, atomic; the first, the last few, the best and the ends of stages are kept."""

import contextlib
import dataclasses
import errno
import functools
import json
import math
import os
import pathlib
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from orbax.checkpoint import v1 as ocp

from hcml_jax import cluster
from hcml_jax.config import UserError
from hcml_jax.training import integrity

LAYOUT = 1  # of what a checkpoint holds: raise it when older ones can no longer be read
ROOM = 1.2  # free bytes that a save asks for, for each byte of the state


class CheckpointError(UserError, RuntimeError):
    """A checkpoint is missing, another model's, or cannot be read or written; the message names it."""


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
        """Position of the last checkpoint, once it is written; None if there is none.

        Raises:
          CheckpointError: if the metadata of the last one cannot be read.
        """
        with self._writing(needed=False):
            self._checkpointer.wait()
        return next(reversed(self.positions), None)

    @property
    def positions(self) -> list[Position]:
        """Positions of the checkpoints, in order; unreadable ones before the last are skipped.

        Raises:
          CheckpointError: if the metadata of the last one cannot be read.
        """
        for info in reversed(self._checkpointer.checkpoints):
            if any(files for _, _, files in os.walk(self._path(info.step))):
                with self._reading(info.step):
                    self._position(info.step)
                break  # folders without files are remains of a deletion
        return list(self._readable())[::-1]

    def save(self, position: Position, state: Any, loss: float | None, *, needed: bool = False) -> None:
        """Saves in the background.

        If a checkpoint cannot be written, a message says so and the run goes on without it.

        Args:
          position: where the run stands.
          state: what to save.
          loss: decides which checkpoint of a stage is its best; None: this one is not.
          needed: whether the run must not go on without it; it is then saved in the foreground.

        Raises:
          CheckpointError: if it is needed, and cannot be written.
        """
        with self._writing(needed=False):
            self._checkpointer.wait()
        with self._writing(needed=needed):
            self._check_room(state)
            self._begin_saving(position, state, loss)
            if needed:
                self._checkpointer.wait()

    def restore(self, position: Position, abstract_state: Any) -> Any:
        """Loads the state saved at `position` into the shapes and shardings of `abstract_state`.

        Raises:
          CheckpointError: if it cannot be read, or holds another model.
        """
        with self._reading(position.step):
            saved = self._checkpointer.metadata(position.step)
            integrity.check_whole(saved)
            self._check_same_model(position.step, saved.metadata, abstract_state)
            state = self._checkpointer.load(position.step, abstract_state)
            integrity.check_same_bits(saved, state)
            return state

    def restore_variables(self, position: Position, abstract_variables: Any) -> Any:
        """Loads the variables alone, without optimizer state.

        Raises:
          CheckpointError: if they cannot be read, or are another model's.
        """
        with self._reading(position.step):
            saved = self._checkpointer.metadata(position.step)
            integrity.check_whole(saved)
            self._check_same_model(position.step, saved.metadata["variables"], abstract_variables)
            rest = jax.tree.map(lambda leaf: ocp.PLACEHOLDER, saved.metadata)
            read = self._checkpointer.load(position.step, rest | {"variables": abstract_variables})
            integrity.check_same_bits(saved, {"variables": read["variables"]})
            return read["variables"]

    def _check_room(self, state: Any) -> None:
        """Raise OSError if the disk has no room for a state: once begun, saves of several processes would hang."""
        needed = sum(x.nbytes for x in jax.tree.leaves(state))
        if not cluster.of_first(cluster.is_first() and self._has_room(ROOM * needed)):
            raise OSError(errno.ENOSPC, f"no room for {needed / 2**20:,.1f} MiB")

    def _has_room(self, size: float) -> bool:
        """Whether `size` bytes are free, after removing the remains of failed saves."""
        for remains in self._checkpointer.directory.glob("*.orbax-checkpoint-tmp"):
            shutil.rmtree(remains, ignore_errors=True)
        with contextlib.suppress(OSError):
            return shutil.disk_usage(self._checkpointer.directory).free > size
        return False

    def _begin_saving(self, position: Position, state: Any, loss: float | None) -> None:
        told = {"loss": loss, "stage": position.stage, "complete": position.complete}
        known = {
            "layout": LAYOUT,
            "position": dataclasses.asdict(position),
            "fingerprints": integrity.fingerprints(state),
        }
        # A copy: the next step consumes the state's buffers while they are still being written.
        self._checkpointer.save_async(
            position.step,
            jax.tree.map(jnp.copy, state),
            metrics=told,
            custom_metadata=known | {"digest": integrity.digest(known)},
            overwrite=True,  # of remains that `positions` passes over
        )

    @contextlib.contextmanager
    def _writing(self, *, needed: bool = True):
        """Context of writing a checkpoint; if it is not needed, a failure is only reported."""
        failed = (
            f"a checkpoint cannot be written to {self._checkpointer.directory} (is the disk full?); those saved "
            "before are whole, and the same command goes on from the last one"
        )
        try:
            with _translating(failed, (OSError, ValueError)):
                yield
        except CheckpointError as error:
            if needed:
                raise
            cluster.say(f"[checkpoint] {error}\n[checkpoint] the run goes on without it")

    def _reading(self, step: int):
        """Context of reading the checkpoint of `step`: errors name it, and offer the one before it."""
        failed = f"checkpoint {self._path(step)} cannot be read"
        return _translating(failed, remedy=lambda: self._remedy(step))

    def _remedy(self, step: int) -> str:
        """What to do without the checkpoint of `step`."""
        for before in self._readable(below=step):
            return _move_out(step, f", of step {before.step}")
        return ""

    def _readable(self, below: float = math.inf) -> Iterator[Position]:
        """Positions of the checkpoints below a step, newest first; unreadable ones are skipped."""
        for info in reversed(self._checkpointer.checkpoints):
            if info.step < below:
                with contextlib.suppress(Exception):
                    yield self._position(info.step)

    def _position(self, step: int) -> Position:
        known = dict(self._checkpointer.metadata(step).custom_metadata or {})
        layout = known.get("layout")
        if layout != LAYOUT:
            raise ValueError(f"it has layout {layout}; this version reads layout {LAYOUT}")
        if known.pop("digest") != integrity.digest(known):
            raise ValueError("what is known of it is not what was written")
        return Position(**known["position"])

    def _check_same_model(self, step: int, saved: Any, wanted: Any) -> None:
        if differing := integrity.differences(saved, wanted):
            shown = "\n  ".join(differing[:5])
            raise CheckpointError(
                f"checkpoint {self._path(step)} is of another model ({len(differing)} arrays differ):\n  {shown}"
            )

    def _path(self, step: int) -> pathlib.Path:
        return self._checkpointer.directory / str(step)


@dataclasses.dataclass(frozen=True)
class _KeepBestAndEnds:
    """Preserves step 0, the last `keep` checkpoints, the ends of stages, and the best of the stage under way."""

    keep: int

    def should_preserve(self, checkpoints, *, context):
        del context
        last = {info.step for info in checkpoints[-self.keep :]}
        ends = {info.step for info in checkpoints if (info.metrics or {}).get("complete")}
        kept = {0} | last | ends | _best(checkpoints)
        return [info.step in kept for info in checkpoints]


def _best(checkpoints) -> set[int]:
    known = [info for info in checkpoints if (info.metrics or {}).get("loss") is not None]
    current = [info for info in known if info.metrics["stage"] == known[-1].metrics["stage"]]
    return {min(current, key=lambda info: info.metrics["loss"]).step} if current else set()


def _check_losses(directory: pathlib.Path) -> None:
    """Raise a CheckpointError that names the checkpoint, where Orbax would fail for all of them."""
    for path in directory.glob("*/metrics/metrics"):
        checkpoint = path.parents[1]
        failed = f"checkpoint {checkpoint} cannot be read: {path} is damaged"
        with _translating(failed, remedy=functools.partial(_move_out, checkpoint.name)):
            json.loads(path.read_text())


def _move_out(name: int | str, before: str = "") -> str:
    return f"\nTo go on from the one before it{before}, move {name} out of the folder"


@contextlib.contextmanager
def _translating(failed: str, errors: Any = Exception, remedy: Callable[[], str] = lambda: ""):
    """Makes what Orbax, the libraries below it and the disk raise a CheckpointError: what failed, why, what to do."""
    try:
        yield
    except CheckpointError:
        raise
    except errors as error:
        raise CheckpointError(f"{failed}: {error}{remedy()}") from error
