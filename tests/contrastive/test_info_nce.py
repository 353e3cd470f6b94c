import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.test_util import check_grads

from hcml_jax.contrastive import info_nce

M, K, C = 6, 9, 5


def candidates(dtype=np.float32):
    rng = np.random.default_rng(0)
    queries, keys = (jnp.asarray(rng.normal(size=(n, C)), dtype) for n in (M, K))
    return queries, keys, jnp.asarray(rng.integers(0, K, M), jnp.int32)


def losses_by_loops(queries, keys, positives, temperature):
    queries, keys = np.asarray(queries, np.float64), np.asarray(keys, np.float64)
    losses = []
    for query, positive in zip(queries, np.asarray(positives), strict=True):
        cosines = [query @ k / np.linalg.norm(query) / np.linalg.norm(k) for k in keys]
        weights = np.exp(np.asarray(cosines) / temperature)
        losses.append(-np.log(weights[positive] / weights.sum()))
    return losses


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("temperature", [0.07, 1.0])
def test_equals_the_loops(dtype, temperature):
    losses = info_nce(*candidates(dtype), temperature=temperature)
    assert losses.shape == (M,)
    assert losses.dtype == jnp.float32
    np.testing.assert_allclose(losses, losses_by_loops(*candidates(dtype), temperature), rtol=1e-4)


def test_equals_optax_cross_entropy():
    queries, keys, positives = candidates()
    queries, keys = (x / jnp.linalg.norm(x, axis=1, keepdims=True) for x in (queries, keys))
    logits = queries @ keys.T / 0.1
    expected = optax.softmax_cross_entropy(logits, jax.nn.one_hot(positives, K))
    np.testing.assert_allclose(info_nce(*candidates(), temperature=0.1), expected, rtol=1e-5)


def test_closed_forms():
    queries, keys, positives = candidates()
    alike = jnp.broadcast_to(keys[:1], keys.shape)
    np.testing.assert_allclose(info_nce(queries, alike, positives, temperature=0.07), np.log(K), rtol=1e-5)
    eye = jnp.eye(K, C)
    found = info_nce(eye[:C], eye, jnp.arange(C), temperature=0.5)
    np.testing.assert_allclose(found, np.log(1 + (K - 1) * np.exp(-2)), rtol=1e-5)


def test_only_directions_count():
    queries, keys, positives = candidates()
    scaled = info_nce(3 * queries, 0.01 * keys, positives, temperature=0.07)
    np.testing.assert_allclose(scaled, info_nce(*candidates(), temperature=0.07), rtol=1e-4)


def test_a_small_temperature_does_not_overflow():
    assert jnp.isfinite(info_nce(*candidates(), temperature=1e-4)).all()


def test_zero_vectors_have_zero_cosine_and_finite_gradients():
    queries, keys, positives = candidates()
    queries, keys = queries.at[0].set(0), keys.at[3].set(0)

    def total(queries, keys):
        losses = info_nce(queries, keys, positives, temperature=0.07)
        return losses.sum(), losses

    gradients, losses = jax.jit(jax.grad(total, (0, 1), has_aux=True))(queries, keys)
    assert losses[0] == pytest.approx(np.log(K), rel=1e-5)
    assert all(jnp.isfinite(g).all() for g in gradients)
    assert gradients[0][1].any()


def test_gradient_equals_finite_differences():
    queries, keys, positives = candidates()
    losses = jax.jit(lambda q, k: info_nce(q, k, positives, temperature=0.5))
    check_grads(losses, (queries, keys), 1, rtol=1e-2)


def test_a_positive_that_is_not_a_key_gives_nan():
    queries, keys, positives = candidates()
    losses = info_nce(queries, keys, positives.at[2].set(K), temperature=0.07)
    np.testing.assert_array_equal(jnp.isnan(losses), np.arange(M) == 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"form": "rings"}, "form: expected one of dense, chunked, ring, found 'rings'"),
        ({"temperature": 0.0}, "temperature: expected a number above 0, found 0.0"),
        ({"keys": jnp.zeros((K, C + 1))}, f"keys: channels of queries: expected {C}, found {C + 1}"),
        ({"positives": jnp.zeros(M)}, "positives: expected integer numbers"),
        ({"positives": jnp.zeros(M - 1, jnp.int32)}, "positives: number of queries"),
        ({"queries": jnp.zeros((M, 2, C))}, r"queries: expected shape \[M, C\]"),
    ],
)
def test_wrong_input_is_refused(change, message):
    queries, keys, positives = candidates()
    arguments = {"queries": queries, "keys": keys, "positives": positives, "temperature": 0.07}
    with pytest.raises(ValueError, match=message):
        info_nce(**(arguments | change))
