"""InfoNCE with several positives against loops, and its forms against each other."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hcml_jax.contrastive import info_nce, info_nce_multi, info_nce_multi_and_hits, info_nce_of_clips, multi_positive

M, K, N, C = 6, 9, 5, 4


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
    """Several tiles of keys, the last one not full."""
    monkeypatch.setattr(multi_positive, "KEY_TILE", 4)


def random(shape, seed=0, dtype=np.float32):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


def some_positives(shape=(M, K), seed=3):
    """The first query has none, the second has all."""
    positives = np.random.default_rng(seed).random(shape) < 0.3
    positives[0], positives[1] = False, True
    return positives


def by_loops(queries, keys, positives, negatives, temperature):
    losses, hits = [], []
    for query, own in zip(np.asarray(queries, np.float64), positives, strict=True):
        rows = [*np.asarray(keys, np.float64), *np.asarray(negatives, np.float64)]
        cosines = [query @ k / np.linalg.norm(query) / np.linalg.norm(k) for k in rows]
        right = [*own, *[False] * (len(rows) - len(own))]
        above = sum(np.exp(c / temperature) for c, r in zip(cosines, right, strict=True) if r)
        below = sum(np.exp(c / temperature) for c in cosines)
        losses.append(-np.log(above / below) if above else 0.0)
        wrong = [c for c, r in zip(cosines, right, strict=True) if not r]
        hits.append(any(right) and max(c for c, r in zip(cosines, right, strict=True) if r) > max(wrong, default=-2))
    return losses, hits


@pytest.mark.parametrize("form", ["dense", "chunked"])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("others", [0, N])
def test_losses_are_those_of_loops(form, dtype, others):
    queries, keys, negatives = (random((n, C), seed, dtype) for seed, n in enumerate((M, K, others or 1)))
    given = {"temperature": 0.3, "form": form, "negatives": negatives if others else None}
    found = jax.jit(functools.partial(info_nce_multi_and_hits, **given))(queries, keys, some_positives())
    losses, hits = by_loops(queries, keys, some_positives(), negatives if others else [], 0.3)
    assert found.losses.dtype == jnp.float32
    np.testing.assert_allclose(found.losses, losses, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(found.hits, hits)
    assert found.losses[0] == 0 and (others or found.losses[1] == 0)


def gradients(form, temperature=0.1):
    given = random((M, C)), random((K, C), 1), random((N, C), 2)

    def total(queries, keys, negatives):
        options = {"temperature": temperature, "form": form, "negatives": negatives}
        losses = info_nce_multi(queries, keys, some_positives(), **options)
        return jnp.vdot(jnp.linspace(1, 2, M), losses)

    return jax.jit(jax.value_and_grad(total, (0, 1, 2)))(*given)


@pytest.mark.parametrize("temperature", [0.1, 1e-3])
def test_both_forms_give_the_same_gradients(temperature):
    dense, chunked = (gradients(form, temperature) for form in ("dense", "chunked"))
    np.testing.assert_allclose(chunked[0], dense[0], rtol=1e-5)
    for found, expected in zip(chunked[1], dense[1], strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())
    assert np.isfinite(chunked[1][0]).all() and np.any(chunked[1][0] != 0)
    np.testing.assert_array_equal(chunked[1][0][0], 0)  # of the query without a positive


@pytest.mark.parametrize("form", ["dense", "chunked"])
def test_without_any_positive_nothing_is_learnt(form):
    def total(queries, keys):
        return info_nce_multi(queries, keys, np.zeros((M, K), bool), temperature=0.1, form=form).sum()

    value, found = jax.value_and_grad(total, (0, 1))(random((M, C)), random((K, C), 1))
    assert value == 0
    for gradient in found:
        np.testing.assert_array_equal(gradient, 0)


@pytest.mark.parametrize("form", ["dense", "chunked"])
def test_alike_features_are_misses(form):
    """Or collapsed features would hit."""
    alike = jnp.broadcast_to(random((1, C)), (K, C))
    options = {"temperature": 0.07, "form": form, "negatives": jnp.broadcast_to(random((1, C)), (301, C))}
    found = info_nce_multi_and_hits(alike[:M], alike, some_positives(), **options)
    assert not found.hits.any()


def test_with_one_positive_it_is_info_nce():
    queries, keys, own = random((M, C)), random((K, C), 1), np.arange(M)
    found = info_nce_multi(queries, keys, own[:, None] == np.arange(K), temperature=0.2)
    np.testing.assert_allclose(found, info_nce(queries, keys, own, temperature=0.2), rtol=1e-5)


def test_the_chunked_form_takes_far_less_memory_than_the_similarities(monkeypatch):
    monkeypatch.setattr(multi_positive, "KEY_TILE", 128)
    rows, others = 512, 16_384
    given = [jax.ShapeDtypeStruct((n, C), jnp.float32) for n in (rows, rows, others)]

    def bytes_of(form):
        def total(queries, keys, negatives):
            own = jnp.eye(rows, dtype=bool)
            return info_nce_multi(queries, keys, own, temperature=0.1, form=form, negatives=negatives).sum()

        return jax.jit(jax.grad(total)).lower(*given).compile().memory_analysis().temp_size_in_bytes

    assert bytes_of("dense") >= 4 * rows * others
    assert bytes_of("chunked") < 4 * rows * others / 10


B, PER_CLIP = 4, 3


def of_clips():
    positives = some_positives((B * 2, PER_CLIP)).reshape(B, 2, PER_CLIP)
    return random((B, 2, C)), random((B, PER_CLIP, C), 1), positives


def test_other_clips_of_the_group_are_negatives():
    queries, keys, positives = of_clips()
    for group, of_group in ((0, [[0, 1, 2, 3]]), (2, [[0, 1], [2, 3]]), (1, [[0], [1], [2], [3]])):
        found = info_nce_of_clips(queries, keys, positives, temperature=0.3, group=group)
        for clips in of_group:
            for clip in clips:
                others = [key for other in clips if other != clip for key in keys[other]]
                losses, hits = by_loops(queries[clip], keys[clip], positives[clip], others, 0.3)
                np.testing.assert_allclose(found.losses[clip], losses, rtol=1e-4, atol=1e-6)
                np.testing.assert_array_equal(found.hits[clip], hits)


def test_clips_that_show_the_same_share_their_positives():
    queries, keys, positives = of_clips()
    same = np.eye(B, dtype=bool)
    same[0, 2] = same[2, 0] = True
    found = info_nce_of_clips(queries, keys, positives, temperature=0.3, same=same)
    ordered = jnp.concatenate([keys[0], keys[2], keys[1], keys[3]])
    right = np.concatenate([positives[0]] * 2 + [np.zeros((2, 2 * PER_CLIP), bool)], axis=1)
    losses, _ = by_loops(queries[0], ordered, right, [], 0.3)
    np.testing.assert_allclose(found.losses[0], losses, rtol=1e-4, atol=1e-6)


def test_further_negatives_take_the_place_of_other_clips():
    queries, keys, positives = of_clips()
    negatives = random((N, C), 5)
    found = info_nce_of_clips(queries, keys, positives, temperature=0.3, negatives=negatives)
    for clip in range(B):
        losses, _ = by_loops(queries[clip], keys[clip], positives[clip], negatives, 0.3)
        np.testing.assert_allclose(found.losses[clip], losses, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"keys": random((K, C + 1))}, "keys: channels of queries"),
        ({"positives": some_positives((M, K + 1))}, "positives: numbers of queries and keys"),
        ({"positives": np.zeros((M, K), np.int32)}, "positives: expected bool"),
        ({"temperature": 0.0}, "temperature: expected a number above 0"),
        ({"form": "ring"}, "form: expected one of dense, chunked"),
        ({"negatives": random((N, C + 1))}, "negatives: channels of queries"),
    ],
)
def test_wrong_input_is_named(changes, message):
    given = {"queries": random((M, C)), "keys": random((K, C)), "positives": some_positives(), "temperature": 0.1}
    with pytest.raises(ValueError, match=message):
        info_nce_multi(**given | changes)


def test_a_batch_that_does_not_divide_is_named():
    with pytest.raises(ValueError, match="a batch of 4 clips does not divide into groups of 3"):
        info_nce_of_clips(*of_clips(), temperature=0.1, group=3)
