"""Queues of keys against a list, and InfoNCE with one against loops."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hcml_jax.contrastive import enqueue, info_nce_with_queue, queue_ages

B, Q, C = 3, 8, 4


def random(shape, seed=0, dtype=np.float32):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


@pytest.mark.parametrize("number", [1, 2, 3, 8])
def test_a_queue_holds_what_a_list_would(number):
    """Also where a batch does not divide the queue, and goes on at its beginning."""
    queue, position = random((Q, C), seed=9), jnp.int32(0)
    oldest_first = list(np.asarray(queue))
    put = jax.jit(enqueue)
    for step in range(7):
        keys = random((number, C), seed=step)
        queue, position = put(queue, position, keys)
        oldest_first = oldest_first[number:] + list(np.asarray(keys))
        np.testing.assert_array_equal(np.roll(queue, -int(position), axis=0), oldest_first)
    assert position == 7 * number % Q


def test_a_queue_keeps_its_dtype():
    queue, _ = enqueue(jnp.zeros((Q, C), jnp.bfloat16), 6, random((B, C)))
    assert queue.dtype == jnp.bfloat16
    np.testing.assert_array_equal(queue[:1], random((B, C)).astype(jnp.bfloat16)[2:])


def test_ages_count_batches():
    queue, position = jnp.zeros((Q, 1)), jnp.int32(0)
    for step in range(1, 7):
        queue, position = enqueue(queue, position, jnp.full((2, 1), float(step)))
    np.testing.assert_array_equal(queue_ages(Q, position, 2), 7 - queue[:, 0])


def losses_by_loops(queries, keys, queue, temperature, weights):
    queries, keys, queue = (np.asarray(x, np.float64) for x in (queries, keys, queue))
    losses, hits = [], []
    for query, key in zip(queries, keys, strict=True):
        cosines = [query @ k / np.linalg.norm(query) / np.linalg.norm(k) for k in (key, *queue)]
        scores = np.exp(np.array(cosines) / temperature) * np.array([1, *weights])
        losses.append(-np.log(scores[0] / scores.sum()))
        hits.append(cosines[0] > max(cosines[1:]))
    return losses, hits


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("weights", [None, np.linspace(0.1, 1, Q)])
def test_the_loss_equals_the_loops(dtype, weights):
    arrays = [random((n, C), seed, dtype) for seed, n in enumerate((B, B, Q))]
    given = None if weights is None else jnp.asarray(weights, jnp.float32)
    found = jax.jit(functools.partial(info_nce_with_queue, temperature=0.07))(*arrays, weights=given)
    losses, hits = losses_by_loops(*arrays, 0.07, np.ones(Q) if weights is None else weights)
    assert found.losses.dtype == jnp.float32
    np.testing.assert_allclose(found.losses, losses, rtol=1e-4)
    np.testing.assert_array_equal(found.hits, hits)


def test_queries_and_keys_meet_no_other_key_of_the_batch():
    queries, keys, queue = random((B, C)), random((B, C), 1), random((Q, C), 2)
    changed = keys.at[1:].set(queries[0])
    one, other = (info_nce_with_queue(queries, k, queue, temperature=0.07).losses[0] for k in (keys, changed))
    assert one == other


def test_collapsed_features_do_not_hit():
    for channels in (4, 128):
        alike = jnp.broadcast_to(random((1, channels)), (Q, channels))
        assert not info_nce_with_queue(alike[:B], alike[:B], alike, temperature=0.07).hits.any()


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="keys: expected at most the 2 rows of the queue, found 3"):
        enqueue(random((2, C)), 0, random((3, C)))
    with pytest.raises(ValueError, match="keys: channels of the queue"):
        enqueue(random((Q, C)), 0, random((B, C + 1)))
    with pytest.raises(ValueError, match="keys: the shape of queries"):
        info_nce_with_queue(random((B, C)), random((B + 1, C)), random((Q, C)), temperature=1.0)
    with pytest.raises(ValueError, match="weights: rows of the queue"):
        info_nce_with_queue(random((B, C)), random((B, C)), random((Q, C)), temperature=1.0, weights=jnp.ones(3))
