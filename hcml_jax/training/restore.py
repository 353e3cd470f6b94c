"""Reading the variables of a run back, at the end of any of its stages."""

import pathlib

from hcml_jax.methods.base import Method, Variables
from hcml_jax.training.checkpoints import CheckpointError, Checkpoints, Position


def positions(method: Method, workdir: pathlib.Path) -> dict[str, Position]:
    """Where a run can be read: "representation", the end of its last stage without class labels' loss (its last
    checkpoint if it has none), and "last", its last checkpoint.

    Raises:
      CheckpointError: if the run has no checkpoint yet.
    """
    with Checkpoints(workdir / "checkpoints") as checkpoints:
        found = checkpoints.positions
    if not found:
        raise CheckpointError(f"{workdir} has no checkpoint yet: train it first")
    recognising = recognising_stages(method)
    ends = [p for p in found if p.complete and p.stage not in recognising]
    return {"representation": (ends or found)[-1], "last": found[-1]}


def restore(workdir: pathlib.Path, position: Position, abstract: Variables) -> Variables:
    """The variables saved at `position`."""
    with Checkpoints(workdir / "checkpoints") as checkpoints:
        return checkpoints.restore_variables(position, abstract)


def recognising_stages(method: Method) -> set[str]:
    """Names of the stages that train the classifier."""
    return {stage.name for stage in method.stages if "classification" in stage.losses}


def without(variables: Variables, *modules: str) -> Variables:
    """Variables less those of the given top-level modules."""
    return {
        collection: {name: tree for name, tree in trees.items() if name not in modules}
        for collection, trees in variables.items()
    }
