"""Fingerprints of arrays: whether what comes back from a disk is what went there."""

from typing import Any

import jax
import jax.numpy as jnp

from hcml_jax.training.freezing import path_names

_WORDS = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}


def fingerprints(tree: Any) -> dict[str, int]:
    """A number for each array, by its path; any change of one element changes it.

    The bits of the elements, summed with odd weights modulo 2^32: integers, so that neither the order of the sum nor
    the devices over which an array is split matter.
    """
    found = jax.device_get(_sums(tree))
    named = jax.tree_util.tree_flatten_with_path(found)[0]
    return {"/".join(path_names(path)): int(value) for path, value in named}


@jax.jit
def _sums(tree):
    return jax.tree.map(_weighted_sum, tree)


def _weighted_sum(x):
    bits = jax.lax.bitcast_convert_type(x, _WORDS[x.dtype.itemsize]).astype(jnp.uint32)
    place, stride = jnp.zeros(x.shape, jnp.uint32), 1
    for axis in reversed(range(x.ndim)):
        place += jnp.uint32(stride % 2**32) * jax.lax.broadcasted_iota(jnp.uint32, x.shape, axis)
        stride *= x.shape[axis]
    return jnp.sum(bits * (2 * place + 1), dtype=jnp.uint32)
