"""The device mesh, made in one place, and how arrays lie on it."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from hcml_jax.config import ConfigError
from hcml_jax.methods.base import QUEUE

# Smaller arrays stay whole on every device: splitting them saves nothing.
SMALLEST_SPLIT = 2**12


def make_mesh(devices: Sequence[jax.Device] | None = None) -> jax.sharding.Mesh:
    """A mesh over `devices`, or over all devices of all hosts, with one axis, "data"."""
    size = jax.device_count() if devices is None else len(devices)
    auto = (jax.sharding.AxisType.Auto,)
    return jax.make_mesh((size,), ("data",), axis_types=auto, devices=devices)


def check_batch(batch_size: int, mesh: jax.sharding.Mesh) -> None:
    """Raises ConfigError if a batch of so many clips does not divide over the mesh."""
    if batch_size % mesh.size:
        fits = max(mesh.size, round(batch_size / mesh.size) * mesh.size)
        raise ConfigError(
            f"config.training.batch_size {batch_size} does not divide over {mesh.size} devices; {fits} would"
        )


@dataclasses.dataclass(frozen=True)
class Layout:
    """Sharding of a run's arrays: batches and queues are split over its devices, the rest of the state is replicated
    or split too.

    Attributes:
      mesh: of `make_mesh`.
      shard_state: whether parameters and optimizer state are split; devices then gather each array when they need
        it (ZeRO, Rajbhandari et al., 2020).
    """

    mesh: jax.sharding.Mesh
    shard_state: bool = False

    @property
    def replicated(self) -> NamedSharding:
        """The whole array on every device."""
        return NamedSharding(self.mesh, P())

    def state_shardings(self, tree: Any) -> Any:
        """Where each array of a state lies."""

        def sharding(path, x):
            split = self.shard_state or any(getattr(key, "key", None) == QUEUE for key in path)
            return NamedSharding(self.mesh, self._split(x.shape) if split else P())

        return jax.tree_util.tree_map_with_path(sharding, tree)

    def place_state(self, tree: Any) -> Any:
        """Inside jit: constrain a state to its shardings."""
        return jax.lax.with_sharding_constraint(tree, self.state_shardings(tree))

    def abstract_state(self, tree: Any) -> Any:
        """Shapes and dtypes of a state, with where its arrays belong."""
        return jax.tree.map(
            lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
            tree,
            self.state_shardings(tree),
        )

    def shard_batch(self, batch: Any) -> Any:
        """Global arrays, split along their first axis, from this process's part of each array of a batch."""
        sharding = NamedSharding(self.mesh, P("data"))
        put = functools.partial(jax.make_array_from_process_local_data, sharding)
        return jax.tree.map(put, batch)

    def _split(self, shape: tuple[int, ...]) -> P:
        """Split along the longest axis that divides, unless the array is small."""
        fitting = [axis for axis, size in enumerate(shape) if size % self.mesh.size == 0]
        if not fitting or np.prod(shape) < SMALLEST_SPLIT:
            return P()
        longest = max(fitting, key=lambda axis: shape[axis])
        return P(*("data" if axis == longest else None for axis in range(len(shape))))
