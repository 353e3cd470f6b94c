"""The networks that an evaluation compares."""

import dataclasses
import functools
from typing import Protocol

import jax

from hcml_jax.batch import Data
from hcml_jax.methods.base import Method, Variables
from hcml_jax.training.checkpoints import Position
from hcml_jax.training.mesh import Layout, make_mesh
from hcml_jax.training.restore import learnt, positions, recognises, restore
from hcml_jax.training.step import abstract_variables, init_variables
from hcml_jax.training.workdir import Workdir


class Given(Protocol):
    """Loaded variables, evaluated without training.

    Attributes:
      path: source of the variables.
      recognises: whether their classifier has been trained.
      modules: top-level modules that have variables.
      chosen: the chosen one of a method's several `classifiers`; "": none.
    """

    path: str
    recognises: bool
    modules: frozenset[str]
    chosen: str

    def __call__(self, variables: Variables) -> Variables:
        """Replace fresh variables by these."""


@dataclasses.dataclass(frozen=True)
class Networks:
    """The networks of a run by name, replicated on this process's devices.

    "representation" and "last" (see `training.restore`; both are `given` unless it is None); "untrained", the variables
    that the run started from; "random", a fresh network, in addition, if it started from given variables.
    """

    method: Method
    data: Data
    workdir: Workdir
    seed: int
    given: Given | None = None

    @functools.cached_property
    def layout(self) -> Layout:
        """Of this process's devices."""
        return Layout(make_mesh(jax.local_devices()))

    @functools.cached_property
    def positions(self) -> dict[str, Position]:
        """Checkpoints of the run, by name; none if variables are given."""
        return {} if self.given else positions(self.method, self.workdir.path)

    @property
    def recognises(self) -> bool:
        """Whether the last one has learnt to classify."""
        return self.given.recognises if self.given else recognises(self.method, self.positions["last"])

    @property
    def beside(self) -> tuple[str, ...]:
        """Networks that the representation is compared with; the last one is fresh."""
        return ("untrained", "random") if "start" in self.positions else ("untrained",)

    def same(self, name: str) -> str:
        """The network's canonical name, if it has two."""
        where = self.positions.get
        return "representation" if name == "last" and where("last") == where("representation") else name

    def load(self, name: str) -> Variables:
        """The network's variables; with given ones, only of deployed modules and of those given."""
        clip_shape = self.data.clip_shape
        if name == self.beside[-1] or self.given:
            fresh = init_variables(self.method, clip_shape, self.seed, self.layout)
            if name == self.beside[-1]:
                return fresh
            return learnt(self.given(fresh), (*self.method.deployed, *self.given.modules))
        position = self.positions["start" if name == "untrained" else name]
        abstract = abstract_variables(self.method, clip_shape, Layout(make_mesh()))
        found = jax.device_get(restore(self.workdir.path, position, abstract))
        return jax.device_put(found, self.layout.replicated)
