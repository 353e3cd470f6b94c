"""InfoNCE among the times of one place, against loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hcml_jax.contrastive import comparable, info_nce_in_time
from tests.contrastive.test_report import EVERY, B, C, K, N, T, predictions_and_targets

TEMPERATURE = 0.2


def by_loops(predictions, targets, candidates):
    predictions, targets = (np.asarray(x, np.float64) for x in (predictions, targets))
    predictions, targets = (x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (predictions, targets))
    candidates = candidates.reshape(B, T, N)
    losses, hits = [], []
    for b in range(B):
        for k in range(1, K + 1):
            for t in range(T - k):
                for n in range(N):
                    cosines = targets[b, :, n] @ predictions[k - 1, b, t, n]
                    scores = np.exp(cosines / TEMPERATURE) * candidates[b, :, n]
                    losses.append(-np.log(np.exp(cosines[t + k] / TEMPERATURE) / scores.sum()))
                    hits.append(scores.argmax() == t + k)
    return np.array(losses), np.array(hits)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("predictable", [EVERY, EVERY & (np.arange(T) < T - 1)], ids=["all", "no last frame"])
def test_equals_the_loops(dtype, predictable):
    arrays = predictions_and_targets(dtype=dtype)
    consecutive = np.ones((B, T - 1), bool)
    consecutive[1, 0] = False
    kept, candidates = map(np.asarray, comparable(consecutive, predictable, K, N))
    found = info_nce_in_time(*arrays, jnp.asarray(candidates), temperature=TEMPERATURE)
    losses, hits = by_loops(*arrays, candidates)
    assert found.losses.dtype == jnp.float32
    assert 0.2 < hits[kept].mean() < 0.95
    np.testing.assert_allclose(found.losses[kept], losses[kept], rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(found.hits[kept], hits[kept])


def test_other_places_and_videos_do_not_count():
    predictions, targets = predictions_and_targets()
    candidates = jnp.ones(B * T * N, bool)

    def first(targets):
        return info_nce_in_time(predictions, targets, candidates, temperature=TEMPERATURE).losses[0]

    gradient = np.array(jax.grad(first)(targets))
    assert gradient[0, :, 0].any(-1).all()
    gradient[0, :, 0] = 0
    assert not gradient.any()


def test_copies_of_the_present_are_never_right():
    _, targets = predictions_and_targets()
    copies = jnp.broadcast_to(targets, (K, B, T, N, C))
    assert not info_nce_in_time(copies, targets, jnp.ones(B * T * N, bool), temperature=TEMPERATURE).hits.any()
