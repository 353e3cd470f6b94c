import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hcml_jax.contrastive import comparable, contrast_report, info_nce_and_hits, pair_predictions, spread_report

K, B, T, N, C = 2, 3, 4, 5, 6
EVERY = np.ones(T, bool)


def predictions_and_targets(batch=B, positions=N, dtype=np.float32):
    rng = np.random.default_rng(0)
    targets = rng.normal(size=(batch, T, positions, C))
    # Predictions that are half right, so that some but not all find their target.
    ahead = [np.roll(targets, -k, axis=1) for k in range(1, K + 1)]
    predictions = ahead + 1.5 * rng.normal(size=(K, *targets.shape))
    return jnp.asarray(predictions, dtype), jnp.asarray(targets, dtype)


@jax.jit
def report(predictions, targets, consecutive=True, predictable=EVERY):
    hits = info_nce_and_hits(*pair_predictions(predictions, targets), temperature=0.07).hits
    consecutive = jnp.broadcast_to(consecutive, (len(targets), T - 1))
    return contrast_report(predictions, targets, hits, *comparable(consecutive, predictable, K, targets.shape[2]))


def report_by_loops(queries, keys, positives, kept, candidates):
    queries, keys = np.asarray(queries, np.float64), np.asarray(keys, np.float64)
    found = {"top1": [], "right_time": [], "right_time_chance": []}
    found |= {"positive": [], "spatial": [], "temporal": [], "easy": []}
    for query, positive in zip(queries[kept], np.asarray(positives)[kept], strict=True):
        cosines = keys @ query / np.linalg.norm(query) / np.linalg.norm(keys, axis=1)
        found["top1"].append(cosines.argmax() == positive)
        times = [
            j for j in range(positive % N, len(cosines), N) if j // (T * N) == positive // (T * N) and candidates[j]
        ]
        found["right_time"].append(max(times, key=lambda j: cosines[j]) == positive)
        found["right_time_chance"].append(1 / len(times))
        for j, cosine in enumerate(cosines):
            if not candidates[j]:
                continue
            (video, _, place), (other, _, elsewhere) = (np.unravel_index(i, (B, T, N)) for i in (positive, j))
            kind = "easy" if other != video else "spatial" if elsewhere != place else "temporal"
            found["positive" if j == positive else kind].append(cosine)
    return {name: np.mean(values) for name, values in found.items()}


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("predictable", [EVERY, EVERY & (np.arange(T) < T - 1)], ids=["all", "no last frame"])
@pytest.mark.parametrize("breaks", [[], [(0, 1), (2, 0)]])
def test_equals_the_loops(dtype, breaks, predictable):
    arrays = predictions_and_targets(dtype=dtype)
    consecutive = np.ones((B, T - 1), bool)
    for place in breaks:
        consecutive[place] = False
    figures = report(*arrays, consecutive, predictable)
    masks = map(np.asarray, comparable(consecutive, predictable, K, N))
    expected = report_by_loops(*pair_predictions(*arrays), *masks)
    assert 0.05 < expected["top1"] < expected["right_time"] < 0.95
    for name in ("top1", "right_time", "right_time_chance"):
        assert figures[name] == pytest.approx(expected.pop(name)), name
    for name, cosine in expected.items():
        assert figures[f"{name}_cosine"] == pytest.approx(cosine, abs=1e-5), name


def test_a_type_without_negatives_reports_zero():
    figures = report(*predictions_and_targets(batch=1, positions=1))
    assert figures["easy_cosine"] == 0
    assert figures["spatial_cosine"] == 0
    assert figures["temporal_cosine"] != 0


def test_where_all_is_broken_nothing_is_reported():
    figures = report(*predictions_and_targets(), False)
    assert set(map(float, figures.values())) == {0.0}


def test_perfect_predictions_have_top1_1_and_collapsed_ones_0():
    _, targets = predictions_and_targets()
    perfect = jnp.stack([jnp.roll(targets, -k, axis=1) for k in range(1, K + 1)])
    assert report(perfect, targets)["top1"] == report(perfect, targets)["right_time"] == 1
    alike = jnp.broadcast_to(targets[:1, :1, :1], targets.shape)
    figures = report(jnp.broadcast_to(alike, perfect.shape), alike)
    assert figures["top1"] == figures["right_time"] == 0
    assert figures["easy_cosine"] == pytest.approx(1, abs=1e-5)


def test_reports_pass_no_gradient():
    def total(predictions, targets):
        return sum((report(predictions, targets) | spread_report(targets)).values())

    for gradient in jax.jit(jax.grad(total, (0, 1)))(*predictions_and_targets()):
        np.testing.assert_array_equal(gradient, 0)


def test_spread_equals_numpy():
    features = np.random.default_rng(0).normal(size=(3, 50, C)).astype(np.float32) * np.arange(1, C + 1)
    units = (features / np.linalg.norm(features, axis=-1, keepdims=True)).reshape(-1, C)
    eigenvalues = np.linalg.eigvalsh(np.cov(units.T.astype(np.float64), bias=True))
    figures = spread_report(features.astype(np.float32))
    assert figures["std"] == pytest.approx(units.std(0).mean() * C**0.5, rel=1e-4)
    expected = eigenvalues.sum() ** 2 / (eigenvalues**2).sum()
    assert figures["effective_rank"] == pytest.approx(expected, rel=1e-4)


def test_spread_of_even_directions_is_full():
    axes = np.concatenate([np.eye(C), -np.eye(C)]).astype(np.float32)
    figures = spread_report(7 * axes)
    assert figures["std"] == pytest.approx(1, rel=1e-5)
    assert figures["effective_rank"] == pytest.approx(C, rel=1e-5)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("vector", [[0, 0, 0], [0.1, 2, -0.3]])
def test_spread_of_collapsed_features_is_zero(dtype, vector):
    features = jnp.broadcast_to(jnp.asarray(vector, dtype), (1000, 3))
    figures = spread_report(features)
    assert figures["std"] == pytest.approx(0, abs=1e-5)
    assert figures["effective_rank"] == 0


def test_two_opposite_directions_have_rank_one():
    features = jnp.concatenate([jnp.ones((5, C)), -jnp.ones((7, C))])
    assert spread_report(features)["effective_rank"] == pytest.approx(1, rel=1e-4)
