"""Momentum contrast (MoCo): moving-average key encoders, and keys with other batch statistics than their queries."""

import functools
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp

from hcml_jax.methods.base import LEARNT, BackboneMethod, Encoded, Variables
from hcml_jax.models.layers import at_least_float32


class MomentumContrast(BackboneMethod):
    """A method that compares clips with keys of moving averages, and whose backbone alone is kept.

    Its `config` has the fields `backbone`, `flip` and `batch_norm_group`, and `build_backbone`.
    """

    deployed = ("backbone",)

    @property
    def attended(self) -> str:
        """See `Method`."""
        return self.config.backbone.stages[-1]

    def encode(self, variables: Variables, clips: jax.Array) -> Encoded:
        """The embedding of the backbone."""
        backbone = {name: tree["backbone"] for name, tree in variables.items() if "backbone" in tree}
        network = self.config.build_backbone()
        embedding, features = network.apply(backbone, self.normalise(clips), False)
        last = at_least_float32(features[network.stages[-1]])
        return Encoded({"backbone": embedding}, maps={}, flow={}, last=last)

    def check_groups(self, clips: int) -> None:
        """Raise ValueError if batch statistics are taken over the whole batch of `clips` clips."""
        if self.config.batch_norm_group >= clips:
            raise ValueError(
                f"batch_norm_group: {self.config.batch_norm_group} clips are the whole batch of {clips}, and the "
                "statistics would tell which keys are of this batch; take fewer"
            )

    def learnt(self, variables: Variables) -> Variables:
        """The learnt collections of fresh variables; raises ValueError if the backbone has no batch normalisation."""
        if "batch_stats" not in variables:
            raise ValueError(
                f"backbone: {self.config.backbone.name!r} has no batch normalisation, of whose statistics "
                "keys have their own"
            )
        return {name: variables[name] for name in LEARNT}


def key_encoder(variables: Variables, modules: Iterable[str]) -> Variables:
    """A copy of those top-level modules of a network, which the key encoder begins as."""
    modules = tuple(modules)
    return {
        collection: {name: tree for name, tree in variables[collection].items() if name in modules}
        for collection in LEARNT
    }


def follow(encoder: Variables, variables: Variables, momentum: float | jax.Array) -> Variables:
    """The key encoder a step later: its parameters are moving averages of the network's; statistics are its own.

    Args:
      encoder: see `key_encoder`.
      variables: the network's.
      momentum: what a step keeps of the average.
    """
    given = {name: variables["params"][name] for name in encoder["params"]}
    params = jax.tree.map(lambda mean, new: momentum * mean + (1 - momentum) * new, encoder["params"], given)
    return {**encoder, "params": params}


def rising(momentum: float, step: jax.Array, steps: int) -> float | jax.Array:
    """The momentum of a step (from 0 on) that rises from `momentum` to 1 over `steps`, by a cosine; 0: it stays.

    Grill et al., BYOL, section 3.2.
    """
    if not steps:
        return momentum
    done = jnp.minimum(step.astype(jnp.float32) / steps, 1.0)
    return 1 - (1 - momentum) * (1 + jnp.cos(jnp.pi * done)) / 2


def shuffled(key: jax.Array, number: int) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    """A random permutation of `number` clips, as two functions of trees of arrays: apply it, and undo it.

    Batch normalisation in groups reveals which clips were grouped together. Keys are encoded in another order than
    their queries, so that the groups do not reveal which key belongs to which query (MoCo 3.3, "shuffling BN").
    """
    order = jax.random.permutation(key, number)
    return functools.partial(_taken, order), functools.partial(_taken, jnp.argsort(order))


def _taken(order: jax.Array, tree: Any) -> Any:
    """The rows of arrays in an order, split over the devices of the mesh that is set, as a batch is."""
    mesh = jax.sharding.get_abstract_mesh()
    taken = jax.tree.map(lambda x: jnp.take(x, order, axis=0), tree)
    # The compiler cannot infer the sharding of gathered rows: each device would encode the whole batch.
    return taken if mesh.empty else jax.lax.with_sharding_constraint(taken, jax.P(mesh.axis_names[0]))
