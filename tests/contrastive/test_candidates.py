from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hcml_jax.contrastive import centre, comparable, gather_positions, pair_predictions, sample_positions

K, B, T, N, C = 2, 3, 4, 5, 4


def labelled_predictions_and_targets():
    """Arrays whose channels say which step, video, time and position they are."""
    steps, videos, times, places = np.meshgrid(
        np.arange(1, K + 1), np.arange(B), np.arange(T), np.arange(N), indexing="ij"
    )
    predictions = np.stack([steps, videos, times, places], -1).astype(np.float32)
    targets = predictions[0].copy()
    targets[..., 0] = 0
    return jnp.asarray(predictions), jnp.asarray(targets)


def test_every_prediction_within_the_clip_meets_its_own_target():
    queries, keys, positives = pair_predictions(*labelled_predictions_and_targets())
    assert queries.shape == (B * N * (3 + 2), C)
    assert keys.shape == (B * T * N, C)
    pairs = set()
    for (step, video, time, place), key in zip(
        np.asarray(queries, int).tolist(), np.asarray(keys, int)[positives].tolist(), strict=True
    ):
        assert key == [0, video, time + step, place]
        pairs.add((step, video, time, place))
    assert len(pairs) == len(queries)  # none twice; with the shape: none left out


def test_queries_keep_the_order_of_videos():
    queries, keys, _ = pair_predictions(*labelled_predictions_and_targets())
    assert (np.diff(queries[:, 1]) >= 0).all()
    assert (np.diff(keys[:, 1]) >= 0).all()


def test_negatives_of_each_type_are_as_many_as_the_paper_says():
    _, keys, positives = pair_predictions(*labelled_predictions_and_targets())
    keys = np.asarray(keys, int)
    counts = {"spatial": (N - 1) * T, "temporal": T - 1, "easy": (B - 1) * N * T}
    for positive in np.asarray(positives):
        _, video, _, place = keys[positive]
        types = Counter()
        for j, (_, other_video, _, other_place) in enumerate(keys):
            if other_video != video:
                types["easy"] += 1
            elif other_place != place:
                types["spatial"] += 1
            elif j != positive:
                types["temporal"] += 1
        assert types == counts


@pytest.mark.parametrize("steps", [0, T])
def test_steps_beyond_the_clip_are_refused(steps):
    targets = jnp.zeros((B, T, N, C))
    with pytest.raises(ValueError, match=f"expected 1 to 3 steps for 4 frames, found {steps}"):
        pair_predictions(jnp.zeros((steps, B, T, N, C)), targets)


def test_predictions_of_other_positions_are_refused():
    with pytest.raises(ValueError, match=r"predictions: \[B, T, N, C\] of targets"):
        pair_predictions(jnp.zeros((K, B, T, N + 1, C)), jnp.zeros((B, T, N, C)))


def alike(batch, height, width):
    return jnp.full((batch, height, width), 0.5)


def test_positions_are_drawn_without_replacement_for_each_video():
    positions = np.asarray(sample_positions(jax.random.key(0), alike(20, 4, 6), 10))
    assert positions.shape == (20, 10)
    assert positions.dtype == np.int32
    assert all(len(set(row)) == 10 for row in positions.tolist())
    assert len({tuple(row) for row in positions.tolist()}) == 20
    assert set(positions.ravel().tolist()) == set(range(24))  # no corner of the grid is left out


def test_positions_depend_on_the_key_alone():
    draws = [np.asarray(sample_positions(jax.random.key(k), alike(2, 4, 6), 10)) for k in (0, 0, 1)]
    np.testing.assert_array_equal(draws[0], draws[1])
    assert (draws[0] != draws[2]).any()


def test_all_positions_of_a_grid_can_be_drawn():
    positions = sample_positions(jax.random.key(0), alike(2, 2, 3), 6)
    np.testing.assert_array_equal(np.sort(positions), [np.arange(6)] * 2)


def test_positions_are_drawn_in_proportion_to_their_weights():
    weights = np.float32([[1, 2, 0], [3, 0, 4]])
    drawn = sample_positions(jax.random.key(0), np.broadcast_to(weights, (20000, 2, 3)), 5)
    first = np.bincount(drawn[:, 0], minlength=6) / 20000
    np.testing.assert_allclose(first, weights.ravel() / 10, atol=0.015)
    # Without replacement: the second is in proportion to what is left.
    after = np.asarray(drawn[drawn[:, 0] == 5, 1])
    np.testing.assert_allclose(
        np.bincount(after, minlength=6) / len(after), np.float32([1, 2, 0, 3, 0, 0]) / 6, atol=0.015
    )
    assert set(np.asarray(drawn[:, 4]).tolist()) == {2, 4}  # none was left but those of weight 0, in any order


@pytest.mark.parametrize("count", [0, 7])
def test_more_positions_than_the_grid_has_are_refused(count):
    with pytest.raises(ValueError, match=rf"count: expected 1 to 6 \(2 x 3\), found {count}"):
        sample_positions(jax.random.key(0), alike(2, 2, 3), count)


def test_gathering_takes_row_major_positions_at_all_times():
    features = np.random.default_rng(0).normal(size=(2, 3, 4, 5, 6)).astype(np.float32)
    positions = np.int32([[0, 7, 19], [5, 4, 11]])
    gathered = gather_positions(features, positions)
    assert gathered.shape == (2, 3, 3, 6)
    for b, t, n in np.ndindex(2, 3, 3):
        y, x = divmod(positions[b, n], 5)
        np.testing.assert_array_equal(gathered[b, t, n], features[b, t, y, x])


def test_positions_of_other_videos_are_refused():
    with pytest.raises(ValueError, match="positions: videos in features: expected 2, found 3"):
        gather_positions(jnp.zeros((2, 3, 4, 5, 6)), jnp.zeros((3, 2), jnp.int32))


@pytest.mark.parametrize("steps", [1, 2, 3])
@pytest.mark.parametrize("predictable", [[True] * 4, [True, True, True, False], [True, False, True, True]])
def test_what_may_be_compared_is_told(steps, predictable):
    rng = np.random.default_rng(0)
    batch, time, positions = 5, 4, 2
    consecutive = rng.random((batch, time - 1)) < 0.6
    kept, candidates = comparable(jnp.asarray(consecutive), np.array(predictable), steps, positions)
    whole = np.concatenate([consecutive, np.ones((batch, 1), bool)], axis=1)
    expected = [
        all(whole[b, t : t + k + 1]) and predictable[t + k]
        for b in range(batch)
        for k in range(1, steps + 1)
        for t in range(time - k)
        for _ in range(positions)
    ]
    np.testing.assert_array_equal(kept, expected)
    np.testing.assert_array_equal(candidates, np.repeat((whole & predictable).ravel(), positions))
    predictions = jnp.zeros((steps, batch, time, positions, 3))
    queries, keys, _ = pair_predictions(predictions, predictions[0])
    assert (len(queries), len(keys)) == (len(kept), len(candidates))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_centred_candidates_have_no_mean(dtype):
    rng = np.random.default_rng(0)
    targets = jnp.asarray(3 + rng.normal(size=(B, T, N, C)), dtype)
    candidates = rng.random(B * T * N) < 0.7
    centred = np.asarray(centre(targets, jnp.asarray(candidates)), np.float64).reshape(-1, C)
    flat = np.asarray(targets, np.float64).reshape(-1, C)
    tolerance = 1e-5 if dtype == jnp.float32 else 0.02
    np.testing.assert_allclose(centred, flat - flat[candidates].mean(0), atol=tolerance)
    np.testing.assert_array_equal(centre(targets, jnp.zeros(B * T * N, bool)), targets)
