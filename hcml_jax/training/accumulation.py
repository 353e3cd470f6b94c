"""Gradients of a batch taken in parts, one after another, for batches whose activations do not fit."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from hcml_jax.config import ConfigError
from hcml_jax.methods.base import Stage
from hcml_jax.training.mesh import Layout


def check_micro_batches(stage: Stage, batch_size: int, devices: int) -> None:
    """Raise ConfigError unless a batch of `batch_size` clips can be split into the schedule's micro-batches."""
    parts = stage.schedule.micro_batches
    if parts == 1:
        return
    asked = f"config.method.stages.{stage.name}.micro_batches is {parts}"
    whole = [name for name, term in stage.terms.items() if term.over_batch]
    whole += [] if stage.batch_norm_group else ["batch normalisation"]
    if whole:
        raise ConfigError(
            f"{asked}, but {' and '.join(whole)} of this stage look at the whole batch: in parts they would be "
            "another loss. To save memory, use more devices, dtype 'bfloat16', or fewer positions"
        )
    size = batch_size / parts
    for name, divisor in (("devices", devices), ("clips of a group", stage.batch_norm_group)):
        if size % divisor:
            raise ConfigError(f"{asked}: parts of {size:g} of {batch_size} clips do not divide by {divisor} {name}")


def accumulated_gradients(
    loss: Callable, selected: Any, batch: Any, key: jax.Array, parts: int, layout: Layout
) -> tuple[Any, Any]:
    """The gradients, and the outputs, of a loss that is a mean over clips.

    Args:
      loss: (selected, batch, key) -> (scalar, outputs).
      selected: what is differentiated.
      batch: arrays whose first axis divides into `parts`.
      key: each part uses its own key, folded in from this one; a single part uses this one.
      parts: how many.
      layout: each part is split over all devices of its mesh.

    Returns:
      Means over the parts of the gradients and of all outputs; new batch statistics too, which are linear in those
      of groups of clips.
    """
    gradient = jax.grad(loss, has_aux=True)
    if parts == 1:
        return gradient(selected, batch, key)
    in_parts = jax.tree.map(lambda x: x.reshape(parts, -1, *x.shape[1:]), batch)
    split = NamedSharding(layout.mesh, P(None, "data"))
    in_parts = jax.lax.with_sharding_constraint(in_parts, split)

    def add(total, part):
        batch, number = part
        found = gradient(selected, batch, jax.random.fold_in(key, number))
        return jax.tree.map(lambda a, b: a + b / parts, total, found), None

    first = jax.tree.map(lambda x: x[0], in_parts)
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(gradient, selected, first, key))
    return jax.lax.scan(add, zeros, (in_parts, jnp.arange(parts)))[0]
