"""The device mesh, made in one place, and how arrays lie on it."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from hcml_jax.config import ConfigError


def make_mesh() -> jax.sharding.Mesh:
    """A mesh over all devices of all hosts with one axis, "data"."""
    return jax.make_mesh((jax.device_count(),), ("data",), axis_types=(jax.sharding.AxisType.Auto,))


def check_batch(batch_size: int, mesh: jax.sharding.Mesh) -> None:
    """Raises ConfigError if a batch of so many clips does not divide over the mesh."""
    if batch_size % mesh.size:
        fits = max(mesh.size, round(batch_size / mesh.size) * mesh.size)
        raise ConfigError(
            f"config.training.batch_size {batch_size} does not divide over {mesh.size} devices; "
            f"{fits} would"
        )


def replicated(mesh: jax.sharding.Mesh) -> NamedSharding:
    """The whole array on every device."""
    return NamedSharding(mesh, P())


def shard_batch(batch: Mapping[str, np.ndarray], mesh: jax.sharding.Mesh) -> dict[str, Any]:
    """Global arrays, split along their first axis, from this process's part of a batch."""
    sharding = NamedSharding(mesh, P("data"))
    return {
        name: jax.make_array_from_process_local_data(sharding, array)
        for name, array in batch.items()
    }
