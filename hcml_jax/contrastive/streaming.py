"""Cross-entropy that never holds all similarities: keys stream past queries, on one device or round a mesh.

It keeps a running log-sum-exp, as in online softmax (Milakov and Gimelshein, 2018); the gradient recomputes the
similarities.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

# A tile of similarities takes 16 MiB.
QUERY_TILE, KEY_TILE = 1024, 4096

# Logit of excluded pairs: below every similarity, and finite because -inf minus -inf is NaN.
FLOOR = -1e30


class Ring(NamedTuple):
    """The devices round which blocks of keys travel.

    Attributes:
      axis: name of their mesh axis, inside `shard_map`; None: there is one device.
      size: how many.
    """

    axis: str | None = None
    size: int = 1

    def first_row(self, step, rows: int):
        """Index, among all keys, of the first row of the block held here after `step` moves."""
        if self.axis is None:
            return 0
        return (jax.lax.axis_index(self.axis) - step) % self.size * rows

    def move(self, block):
        """Passes a block to the next device, and takes one from the device before."""
        if self.axis is None:
            return block
        pairs = [(i, (i + 1) % self.size) for i in range(self.size)]
        return jax.tree.map(lambda x: jax.lax.ppermute(x, self.axis, pairs), block)


class Queries(NamedTuple):
    """Query vectors `[M, C]`, the rows `[M]` of their positives among the keys, and their owners `[M]`."""

    vectors: jax.Array
    positives: jax.Array
    owners: jax.Array


class Keys(NamedTuple):
    """Key vectors `[K, C]` and their owners `[K]`: a key is not a negative of queries with the same owner."""

    vectors: jax.Array
    owners: jax.Array


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def streamed_cross_entropy(ring: Ring, queries: Queries, keys: Keys) -> tuple[jax.Array, jax.Array]:
    """-log softmax of `queries.vectors @ keys.vectors.T` at each query's positive, over the keys of the whole ring.

    Args:
      ring: the devices that hold the keys.
      queries: float32, this device's.
      keys: float32, this device's; every device has the same number.

    Returns:
      losses float32 [M]; hits bool [M], whether the positive exceeds every negative.
    """
    return _forward(ring, queries, keys)[0]


def _forward(ring: Ring, queries: Queries, keys: Keys):
    query_tiles = tiles(queries, QUERY_TILE)

    def step(number, carry):
        sums, block = carry
        following = ring.move(block)  # before the work, so that it travels meanwhile
        key_tiles = _numbered_tiles(block, ring.first_row(number, len(block.vectors)))
        sums = jax.lax.map(lambda tile: _absorb(*tile, key_tiles), (query_tiles, sums))
        return sums, following

    floor = jnp.full(query_tiles.positives.shape, FLOOR)
    sums = _Sums(highest=floor, total=jnp.zeros_like(floor), positive=floor, negative=floor)
    sums, _ = jax.lax.fori_loop(0, ring.size, step, (sums, keys))
    sums = _join(sums, len(queries.vectors))
    normaliser = sums.highest + jnp.log(sums.total)
    positive = jnp.where(sums.positive > FLOOR, sums.positive, jnp.nan)  # where it is no key
    outputs = normaliser - positive, positive > sums.negative
    return outputs, (queries, keys, normaliser)


def _backward(ring: Ring, residuals, gradients):
    queries, keys, normaliser = residuals
    query_tiles, normaliser, gradient = (tiles(x, QUERY_TILE) for x in (queries, normaliser, gradients[0]))

    def step(number, carry):
        query_gradient, block, key_gradient = carry
        key_tiles = _numbered_tiles(block, ring.first_row(number, len(block.vectors)))

        def one_key_tile(query_gradient, key_tile):
            def one_query_tile(key_gradient, tile):
                queries, normaliser, gradient, query_gradient = tile
                logits, positive = _similarities(queries, key_tile)
                change = jnp.exp(logits - normaliser[:, None]) - positive.astype(jnp.float32)
                change *= gradient[:, None]
                query_gradient += _matmul(change, key_tile[0].vectors)
                return key_gradient + _matmul(change.T, queries.vectors), query_gradient

            zero = jnp.zeros_like(key_tile[0].vectors)
            given = query_tiles, normaliser, gradient, query_gradient
            key_gradient, query_gradient = jax.lax.scan(one_query_tile, zero, given)
            return query_gradient, key_gradient

        query_gradient, found = jax.lax.scan(one_key_tile, query_gradient, key_tiles)
        key_gradient += _join(found, len(block.vectors))
        return query_gradient, *ring.move((block, key_gradient))

    zeros = jnp.zeros_like(query_tiles.vectors), keys, jnp.zeros_like(keys.vectors)
    # After one move per device, every block and its gradient are back where they started.
    query_gradient, _, key_gradient = jax.lax.fori_loop(0, ring.size, step, zeros)
    query_gradient = _join(query_gradient, len(queries.vectors))
    return Queries(query_gradient, None, None), Keys(key_gradient, None)


streamed_cross_entropy.defvjp(_forward, _backward)


class _Sums(NamedTuple):
    """Of the similarities seen so far: highest, sum of exp(similarity - highest), the positive, highest negative."""

    highest: jax.Array
    total: jax.Array
    positive: jax.Array
    negative: jax.Array


def _absorb(queries: Queries, sums: _Sums, key_tiles) -> _Sums:
    """Adds all tiles of keys to the sums of a tile of queries."""

    def absorb(sums: _Sums, key_tile):
        logits, positive = _similarities(queries, key_tile)
        highest = jnp.maximum(sums.highest, logits.max(1))
        total = sums.total * jnp.exp(sums.highest - highest)
        total += jnp.exp(logits - highest[:, None]).sum(1)
        among_positives = jnp.where(positive, logits, FLOOR).max(1)
        among_negatives = jnp.where(positive, FLOOR, logits).max(1)
        positive = jnp.maximum(sums.positive, among_positives)
        return _Sums(highest, total, positive, jnp.maximum(sums.negative, among_negatives)), None

    return jax.lax.scan(absorb, sums, key_tiles)[0]


def _similarities(queries: Queries, numbered_keys):
    """Logits of a tile of queries by a tile of keys, those of excluded pairs at the floor; and which are positives."""
    keys, numbers = numbered_keys
    positive = queries.positives[:, None] == numbers
    excluded = (queries.owners[:, None] == keys.owners) & ~positive | (numbers < 0)
    return jnp.where(excluded, FLOOR, _matmul(queries.vectors, keys.vectors.T)), positive


def _matmul(a, b):
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)


def _numbered_tiles(keys: Keys, first_row):
    """Tiles of keys, and the row of each key among all; -1 for padding."""
    rows = len(keys.vectors)
    of_keys, number = tiles((keys, jnp.arange(rows) + 1), KEY_TILE)
    return of_keys, jnp.where(number > 0, number - 1 + first_row, -1)


def tiles(tree, size: int):
    """Arrays `[N, ...]` as `[tiles, min(size, N), ...]`, filled up with zeros."""

    def tile(x):
        rows = min(size, len(x))
        padded = jnp.pad(x, [(0, -len(x) % rows)] + [(0, 0)] * (x.ndim - 1))
        return padded.reshape(-1, rows, *x.shape[1:])

    return jax.tree.map(tile, tree)


def _join(tree, rows: int):
    """Undoes `tiles`."""
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[:rows], tree)
