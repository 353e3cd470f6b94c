"""The networks that an evaluation of a run compares."""

import dataclasses
import functools

import jax

from hcml_jax.batch import Data
from hcml_jax.methods.base import Method, Variables
from hcml_jax.training.checkpoints import Position
from hcml_jax.training.mesh import Layout, make_mesh
from hcml_jax.training.restore import positions, recognises, restore
from hcml_jax.training.step import abstract_variables, init_variables
from hcml_jax.training.workdir import Workdir


@dataclasses.dataclass(frozen=True)
class Networks:
    """The networks of a run by name, on this process's own devices: `layout`.

    "representation" and "last" (see `training.restore`); "untrained", what it started from; "random", a fresh network
    beside it if it started from given variables.
    """

    method: Method
    data: Data
    workdir: Workdir
    seed: int
    layout: Layout

    @functools.cached_property
    def positions(self) -> dict[str, Position]:
        """Where the run can be read."""
        return positions(self.method, self.workdir.path)

    @property
    def recognises(self) -> bool:
        """Whether the last one has learnt to classify."""
        return recognises(self.method, self.positions["last"])

    @property
    def beside(self) -> tuple[str, ...]:
        """What a representation is held against; the last one is fresh."""
        return ("untrained", "random") if "start" in self.positions else ("untrained",)

    def load(self, name: str) -> Variables:
        """The network's variables."""
        clip_shape = self.data.clip_shape
        if name == self.beside[-1]:
            return init_variables(self.method, clip_shape, self.seed, self.layout)
        position = self.positions["start" if name == "untrained" else name]
        abstract = abstract_variables(self.method, clip_shape, Layout(make_mesh()))
        found = jax.device_get(restore(self.workdir.path, position, abstract))
        return jax.device_put(found, self.layout.replicated)
