"""Reading the variables of a run back, at the end of any of its stages."""

import pathlib

from hcml_jax.config import ConfigError, nearest
from hcml_jax.methods.base import LEARNT, Method, Variables
from hcml_jax.training.checkpoints import CheckpointError, Checkpoints, Position


def positions(method: Method, workdir: pathlib.Path) -> dict[str, Position]:
    """Checkpoints of a run, by name.

    Returns:
      "last": its last checkpoint; "start": the variables that it started from, if these were given; "representation":
      the result of the stages that do not train class scores: the end of the last of them that has ended, or else their
      last checkpoint, or else "start" (if the method has such stages), or else "last".

    Raises:
      CheckpointError: if the run has no checkpoint yet.
    """
    found = _saved(workdir)
    unlabelled = {stage.name for stage in method.stages if not stage.classifies}
    of_levels = [p for p in found if p.stage in unlabelled]
    ends = [p for p in of_levels if p.complete]
    start = [p for p in found if p.step == 0]
    representation = ends or of_levels or (start if unlabelled else []) or found
    named = {"last": found[-1], "representation": representation[-1]}
    return named | ({"start": start[0]} if start else {})


def end_of(stage: str, workdir: pathlib.Path) -> Position:
    """The end of a stage of a run, or its last checkpoint if `stage` is "".

    Raises:
      CheckpointError: if the run has no checkpoint yet.
      ConfigError: if the stage has not ended.
    """
    found = _saved(workdir)
    if not stage:
        return found[-1]
    ends = {p.stage: p for p in found if p.complete}
    if stage not in ends:
        raise ConfigError(f"{workdir}: no stage {stage!r} has ended. {nearest(stage, ends)}")
    return ends[stage]


def restore(workdir: pathlib.Path, position: Position, abstract: Variables) -> Variables:
    """The variables saved at `position`."""
    with Checkpoints(workdir / "checkpoints") as checkpoints:
        return checkpoints.restore_variables(position, abstract)


def recognises(method: Method, position: Position) -> bool:
    """Whether a stage that teaches class scores has begun by then."""
    names = [stage.name for stage in method.stages]
    begun = method.stages[: names.index(position.stage) + 1] if position.step else ()
    return any(stage.classifies for stage in begun)


def learnt(variables: Variables, modules: tuple[str, ...] | None = None) -> Variables:
    """Variables without the collections that only serve training; with `modules`, only these top-level modules."""
    return {
        collection: {name: tree for name, tree in trees.items() if not modules or name in modules}
        for collection, trees in variables.items()
        if collection in LEARNT
    }


def _saved(workdir: pathlib.Path) -> list[Position]:
    with Checkpoints(workdir / "checkpoints") as checkpoints:
        found = checkpoints.positions
    if not found:
        raise CheckpointError(f"{workdir} has no checkpoint yet: train it first")
    return found
