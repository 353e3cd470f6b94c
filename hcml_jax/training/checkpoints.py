"""Checkpoints in Orbax: asynchronous, atomic; the last few, the best, and the end of every stage are kept."""

import contextlib
import dataclasses
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
from orbax.checkpoint import v1 as ocp

from hcml_jax.config import UserError
from hcml_jax.training.freezing import path_names


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
    """

    step: int
    stage: str
    stage_step: int
    complete: bool


class Checkpoints:
    """The checkpoints of a run, under `directory`."""

    def __init__(self, directory: pathlib.Path, keep: int = 2):
        self._checkpointer = ocp.training.Checkpointer(
            directory.absolute(),
            preservation_policy=_KeepBestAndEnds(keep),
            save_decision_policy=ocp.training.save_decision_policies.FixedIntervalPolicy(1),
            cleanup_tmp_directories=True,
        )

    def __enter__(self):
        return self

    def __exit__(self, kind, *error):
        with contextlib.suppress(CheckpointError) if kind else contextlib.nullcontext():
            with self._writing():
                self._checkpointer.close()

    @property
    def latest(self) -> Position | None:
        """Where the last checkpoint was taken, once it is written; None if there is none."""
        with self._writing():
            self._checkpointer.wait()
        latest = self._checkpointer.latest
        return latest and self._position(latest.step)

    def stage_end(self, stage: str) -> Position | None:
        """Where the given stage ended; None if it has not."""
        positions = [self._position(info.step) for info in self._checkpointer.checkpoints]
        ends = [p for p in positions if p.stage == stage and p.complete]
        return ends[-1] if ends else None

    def save(self, position: Position, state: Any, loss: float) -> None:
        """Saves in the background; `loss` decides which checkpoint of a stage is its best.

        Raises:
          CheckpointError: if this one, or the one before it, cannot be written.
        """
        with self._writing():
            # A copy: the next step consumes the state's buffers while they are still being written.
            self._checkpointer.save_async(
                position.step,
                jax.tree.map(jnp.copy, state),
                metrics={"loss": loss, "stage": position.stage, "complete": position.complete},
                custom_metadata=dataclasses.asdict(position),
            )

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
        path = self._checkpointer.directory / str(position.step)
        try:
            saved = self._checkpointer.metadata(position.step).metadata
            _check_same_model(path, saved, abstract_state)
            return self._checkpointer.load(position.step, abstract_state)
        except (ValueError, OSError, KeyError) as error:
            raise CheckpointError(f"checkpoint {path} cannot be read: {error}") from error

    def restore_variables(self, position: Position, abstract_variables: Any) -> Any:
        """Loads the variables alone, without optimizer state."""
        path = self._checkpointer.directory / str(position.step)
        saved = self._checkpointer.metadata(position.step).metadata
        _check_same_model(path, saved["variables"], abstract_variables)
        placeholders = jax.tree.map(lambda leaf: ocp.PLACEHOLDER, saved)
        loaded = self._checkpointer.load(
            position.step, {**placeholders, "variables": abstract_variables}
        )
        return loaded["variables"]

    def _position(self, step: int) -> Position:
        return Position(**self._checkpointer.metadata(step).custom_metadata)


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
        raise CheckpointError(
            f"checkpoint {path} is of another model ({len(differences)} arrays differ):\n  {shown}"
        )


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {"/".join(path_names(path)): tuple(leaf.shape) for path, leaf in leaves}
