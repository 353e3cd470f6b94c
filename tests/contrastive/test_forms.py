"""The forms of InfoNCE against each other; the ring over real devices is in tests/devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hcml_jax.contrastive import choose_form, info_nce, info_nce_and_hits, streaming
from tests.contrastive.forms import outcome

M, K, C = 23, 37, 8


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
    """Several tiles of queries and of keys, the last ones not full."""
    monkeypatch.setattr(streaming, "QUERY_TILE", 5)
    monkeypatch.setattr(streaming, "KEY_TILE", 8)


def candidates(seed=0):
    rng = np.random.default_rng(seed)
    queries, keys = (jnp.asarray(rng.normal(size=(n, C)), jnp.float32) for n in (M, K))
    return queries, keys, jnp.asarray(rng.integers(0, K, M), jnp.int32)


def some_owners():
    rng = np.random.default_rng(1)
    return tuple(jnp.asarray(rng.integers(0, 4, n), jnp.int32) for n in (M, K))


def one_device_mesh():
    return jax.make_mesh((1,), ("data",), (jax.sharding.AxisType.Auto,), devices=jax.devices()[:1])


def losses_and_gradients(form, owners=None):
    return outcome(form, *candidates(), jnp.asarray(0.07), owners, one_device_mesh())


@pytest.mark.parametrize("owners", [None, some_owners()], ids=["all pairs", "pairs left out"])
@pytest.mark.parametrize("form", ["chunked", "ring"])
def test_losses_hits_and_gradients_equal_the_dense_form(form, owners):
    expected = losses_and_gradients("dense", owners)
    for found, wanted in zip(losses_and_gradients(form, owners), expected, strict=True):
        scale = np.abs(wanted).max()
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5 * scale)


@pytest.mark.parametrize("form", ["dense", "chunked"])
def test_pairs_of_one_owner_are_left_out(form):
    queries, keys, positives = candidates()
    of_queries, of_keys = some_owners()
    losses = info_nce(queries, keys, positives, temperature=0.5, form=form, owners=(of_queries, of_keys))
    a, b = (np.asarray(x) / np.linalg.norm(x, axis=1, keepdims=True) for x in (queries, keys))
    logits = a @ b.T / 0.5
    for i, positive in enumerate(np.asarray(positives)):
        kept = [j for j in range(K) if of_queries[i] != of_keys[j] or j == positive]
        expected = np.log(np.exp(logits[i, kept]).sum()) - logits[i, positive]
        assert float(losses[i]) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("form", ["dense", "chunked"])
def test_a_hit_is_a_positive_above_every_negative(form):
    queries, keys, positives = candidates()
    nearest = jnp.argmax(queries @ keys.T / jnp.linalg.norm(keys, axis=1), axis=1)
    positives = positives.at[::2].set(nearest[::2])
    _, hits = info_nce_and_hits(queries, keys, positives, temperature=0.07, form=form)
    np.testing.assert_array_equal(hits, nearest == positives)
    assert M // 2 <= hits.sum() < M
    alike = jnp.broadcast_to(keys[:1], keys.shape)
    assert not info_nce_and_hits(queries, alike, positives, temperature=0.07, form=form).hits.any()


def test_a_positive_that_is_not_a_key_gives_nan_when_streamed():
    queries, keys, positives = candidates()
    losses = info_nce(queries, keys, positives.at[2].set(K), temperature=0.07, form="chunked")
    np.testing.assert_array_equal(jnp.isnan(losses), np.arange(M) == 2)


def test_streaming_takes_far_less_memory_than_the_similarities():
    rows = 4096
    vectors = jax.ShapeDtypeStruct((rows, C), jnp.float32)
    positives = jnp.arange(rows)

    def bytes_of(form):
        def total(queries, keys):
            return info_nce(queries, keys, positives, temperature=0.07, form=form).sum()

        step = jax.jit(jax.grad(total, (0, 1)))
        return step.lower(vectors, vectors).compile().memory_analysis().temp_size_in_bytes

    assert bytes_of("dense") >= 4 * rows**2
    assert bytes_of("chunked") < 4 * rows**2 / 20


@pytest.mark.parametrize(
    ("queries", "keys", "devices", "form"),
    [(8192, 8192, 1, "dense"), (8192, 8193, 1, "chunked"), (2**20, 2**20, 1, "chunked")],
)
def test_the_form_is_dense_while_the_similarities_fit(queries, keys, devices, form):
    assert choose_form(queries, keys) == form


def test_the_ring_needs_a_mesh():
    with pytest.raises(ValueError, match="mesh: the form 'ring' needs one"):
        info_nce(*candidates(), temperature=0.07, form="ring")


def test_owners_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="owners: numbers of queries and keys"):
        info_nce(*candidates(), temperature=0.07, owners=some_owners()[::-1])
