"""Freezing by path: the trainable part of a tree, with optax's mask in place of the rest."""

from collections.abc import Callable
from typing import Any

import jax
import optax

Path = tuple[str, ...]


def path_names(path: tuple) -> Path:
    """The names along a path of `jax.tree_util`."""
    return tuple(str(getattr(key, "key", getattr(key, "name", key))) for key in path)


def select(tree: Any, trainable: Callable[[Path], bool]) -> Any:
    """`tree` with `optax.MaskedNode` for every frozen leaf.

    Masked nodes have no leaves: what is not selected is not differentiated, and has no optimizer state.
    """
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: leaf if trainable(path_names(path)) else optax.MaskedNode(), tree
    )


def merge(selected: Any, tree: Any) -> Any:
    """`tree` with the leaves of `selected` where it has any: the inverse of `select`."""
    return jax.tree.map(
        lambda chosen, leaf: leaf if isinstance(chosen, optax.MaskedNode) else chosen,
        selected,
        tree,
        is_leaf=lambda node: isinstance(node, optax.MaskedNode),
    )
