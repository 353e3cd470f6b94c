"""Checkpoints in Orbax: asynchronous, atomic; the last few, the best, and the end of every stage are kept."""

import contextlib
import dataclasses
import pathlib
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
    """

    def __init__(self, directory: pathlib.Path, keep: int = 2, *, writes: bool = False):
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
        """Where the last checkpoint was taken, once it is written; None if there is none."""
        with self._writing():
            self._checkpointer.wait()
        return next(self._newest_first(), None)

    @property
    def positions(self) -> list[Position]:
        """Where the checkpoints were taken, in order."""
        return list(self._newest_first())[::-1]

    def save(self, position: Position, state: Any, loss: float | None) -> None:
        """Saves in the background; the end of a stage, in the foreground.

        A checkpoint that cannot be written is told of, and the run goes on without it.

        Args:
          position: where the run stands.
          state: what to save.
          loss: decides which checkpoint of a stage is its best; None: not this one.

        Raises:
          CheckpointError: if the end of a stage cannot be written.
        """
        with self._telling():
            self._checkpointer.wait()
        if position.complete:
            with self._writing():
                self._begin_saving(position, state, loss)
                self._checkpointer.wait()
        else:
            with self._telling():
                self._begin_saving(position, state, loss)

    def _begin_saving(self, position: Position, state: Any, loss: float | None) -> None:
        told = {"loss": loss, "stage": position.stage, "complete": position.complete}
        # A copy: the next step consumes the state's buffers while they are still being written.
        self._checkpointer.save_async(
            position.step,
            jax.tree.map(jnp.copy, state),
            metrics=None if loss is None else told,
            custom_metadata={
                "layout": LAYOUT,
                "position": dataclasses.asdict(position),
                "fingerprints": fingerprints(state),
            },
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
                f"checkpoint {path} cannot be read: {error}{self._offer(position)}"
            ) from error

    def _offer(self, position: Position) -> str:
        """What to do without the checkpoint taken at `position`."""
        before = [p for p in self.positions if p.step < position.step]
        if not before:
            return ""
        step = before[-1].step
        return f"\nThe one before it is of step {step}: to go on from there, move {position.step} out of the folder"

    def _newest_first(self) -> Iterator[Position]:
        """Of all checkpoints but those whose deletion was cut short."""
        for info in reversed(self._checkpointer.checkpoints):
            with contextlib.suppress(TypeError, ValueError, OSError):
                known = self._checkpointer.metadata(info.step).custom_metadata
                if known is None:
                    continue
                if known.get("layout") != LAYOUT:
                    path = self._checkpointer.directory / str(info.step)
                    raise CheckpointError(
                        f"checkpoint {path} has layout {known.get('layout')}; this version reads layout {LAYOUT}"
                    )
                yield Position(**known["position"])


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
