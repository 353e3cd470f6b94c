"""Integrity of what is read back from a disk: fingerprints of arrays, and digests of their metadata."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from hcml_jax.training.freezing import path_names

_WORDS = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}


def fingerprints(tree: Any) -> dict[str, int]:
    """Path of each array -> its fingerprint; any change of one element changes it.

    It is the sum of the elements' bits with odd weights modulo 2^32, in integers, so that neither the order of the sum
    nor the devices over which an array is split matter.
    """
    return {name: int(value) for name, value in _named(jax.device_get(_sums(tree))).items()}


def digest(known: Mapping[str, Any]) -> str:
    """A number for plain values; any change of them changes it."""
    return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()


def check_whole(saved: Any) -> None:
    """Raises ValueError if, of the arrays with a fingerprint in the Orbax metadata `saved`, some are gone."""
    if gone := sorted(saved.custom_metadata["fingerprints"].keys() - _named(saved.metadata).keys()):
        raise ValueError(f"{len(gone)} arrays are gone: {gone[:5]}")


def check_same_bits(saved: Any, read: Any) -> None:
    """Raises ValueError if arrays of the tree `read` have other fingerprints than in the Orbax metadata `saved`."""
    written = saved.custom_metadata["fingerprints"]
    if changed := [name for name, value in fingerprints(read).items() if written[name] != value]:
        raise ValueError(f"{len(changed)} arrays are not what was written: {changed[:5]}")


def differences(saved: Any, wanted: Any) -> list[str]:
    """A line for each array that only one of two trees has, or with another shape; none: they are of the same model."""
    found, expected = ({name: tuple(leaf.shape) for name, leaf in _named(tree).items()} for tree in (saved, wanted))
    return [
        f"{name}: {found.get(name, 'absent')} in the checkpoint, {expected.get(name, 'absent')} here"
        for name in sorted(found.keys() | expected.keys())
        if found.get(name) != expected.get(name)
    ]


def _named(tree: Any) -> dict[str, Any]:
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {"/".join(path_names(path)): leaf for path, leaf in leaves}


@jax.jit
def _sums(tree):
    return jax.tree.map(_weighted_sum, tree)


def _weighted_sum(x):
    x = x.astype(jnp.uint8) if x.dtype == jnp.bool_ else x
    bits = jax.lax.bitcast_convert_type(x, _WORDS[x.dtype.itemsize]).astype(jnp.uint32)
    place, stride = jnp.zeros(x.shape, jnp.uint32), 1
    for axis in reversed(range(x.ndim)):
        place += jnp.uint32(stride % 2**32) * jax.lax.broadcasted_iota(jnp.uint32, x.shape, axis)
        stride *= x.shape[axis]
    return jnp.sum(bits * (2 * place + 1), dtype=jnp.uint32)
