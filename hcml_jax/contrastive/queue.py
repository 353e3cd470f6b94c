"""Keys of earlier batches as negatives: the queue of momentum contrast (He et al., 2020)."""

import jax
import jax.numpy as jnp

from hcml_jax.contrastive.info_nce import InfoNCE
from hcml_jax.ops.check import check_equal, checked
from hcml_jax.ops.normalise import unit_vectors

ROUNDING = 1e-5  # of a cosine


def enqueue(queue, position, keys) -> tuple[jax.Array, jax.Array]:
    """Replace the oldest keys of a queue with a batch of keys, in the batch's order.

    Whether a row is kept or replaced depends on its own index only, so a queue that is split over devices is not moved.

    Args:
      queue: [Q, C], floating.
      position: int scalar, the row of the oldest key, 0..Q-1.
      keys: [K, C], floating, at most Q.

    Returns:
      queue: [Q, C], with its dtype unchanged; rows position, position + 1, ... (modulo Q) hold the keys.
      position: int32, the row of the key that is now the oldest.

    Raises:
      ValueError: the shapes do not fit each other.
    """
    queue, keys = checked("queue", queue, "Q C"), checked("keys", keys, "K C")
    check_equal("keys: channels of the queue", keys.shape[1], queue.shape[1])
    size, number = len(queue), len(keys)
    if number > size:
        raise ValueError(f"keys: expected at most the {size} rows of the queue, found {number}")
    position = jnp.asarray(position, jnp.int32)
    place = (jnp.arange(size, dtype=jnp.int32) - position) % size
    coming = keys.astype(queue.dtype)[jnp.minimum(place, number - 1)]
    return jnp.where((place < number)[:, None], coming, queue), (position + number) % size


def queue_ages(size: int, position, number: int) -> jax.Array:
    """Age of each row of a queue [Q], in batches of `number` keys, 1 for the newest; int32 [Q].

    Args:
      size: Q.
      position: int scalar, the row of the oldest key.
      number: keys of a batch.
    """
    place = (jnp.arange(size, dtype=jnp.int32) - jnp.asarray(position, jnp.int32)) % size
    return (size - 1 - place) // number + 1


def info_nce_with_queue(queries, keys, queue, *, temperature, weights=None) -> InfoNCE:
    """InfoNCE of each query with its own key, against the keys of a queue (MoCo eq. 1, MSCL eq. 3 and 4).

    Keys of the same batch are not negatives, so that a query meets negatives of its own video only once they are old.

    Args:
      queries: [B, C], floating.
      keys: [B, C], floating: key b is query b's positive.
      queue: [Q, C], floating, the negatives.
      temperature: tau, above 0.
      weights: [Q], above 0, of each negative in the sum; None: 1.

    Returns:
      losses float32 [B]; hits bool [B], whether the positive exceeds every negative.

    Raises:
      ValueError: the shapes do not fit each other.
    """
    queries, keys = checked("queries", queries, "B C"), checked("keys", keys, "B C")
    queue = checked("queue", queue, "Q C")
    check_equal("keys: the shape of queries", keys.shape, queries.shape)
    check_equal("queue: channels of queries", queue.shape[1], queries.shape[1])
    queries = unit_vectors(queries) / temperature
    positive = jnp.sum(queries * unit_vectors(keys), axis=-1)
    negatives = jnp.matmul(queries, unit_vectors(queue).T, precision=jax.lax.Precision.HIGHEST)
    # The two products round differently: by less than this margin where features are equal.
    hits = jnp.all(positive[:, None] > negatives + ROUNDING / temperature, axis=1)
    if weights is not None:
        weights = checked("weights", weights, "Q")
        check_equal("weights: rows of the queue", len(weights), len(queue))
        negatives += jnp.log(weights)[None]
    return InfoNCE(jnp.logaddexp(positive, jax.nn.logsumexp(negatives, axis=1)) - positive, hits)
