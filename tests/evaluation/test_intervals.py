"""Intervals and paired tests against closed forms, scipy and coverage."""

import numpy as np
import pytest
from scipy import stats

from hcml_jax.evaluation import intervals as module
from hcml_jax.evaluation.intervals import PerVideo, intervals, paired_difference, resampled


def per_video(values, groups=None, **fields):
    return PerVideo(np.asarray(values, float), np.arange(len(values)), groups, **fields)


def test_the_interval_of_a_share_is_that_of_binomial_draws():
    hits = np.arange(400) < 260
    (found,) = intervals([per_video(hits.astype(float))])
    expected = stats.binom(400, 0.65).ppf([0.025, 0.975]) / 400
    np.testing.assert_allclose(found, expected, atol=0.006)


def test_the_interval_of_a_mean_is_scipys():
    values = np.random.default_rng(0).gamma(2.0, size=150)
    (found,) = intervals([per_video(values)])
    expected = stats.bootstrap((values,), np.mean, n_resamples=4000, method="percentile", random_state=1)
    np.testing.assert_allclose(found, expected.confidence_interval, atol=0.03)


def test_a_mean_of_class_means_weighs_classes_alike():
    """A plain loop over resamples; class 2 may be missed by one, and does not count in it then."""
    hits = np.array([1, 1, 1, 0, 1, 0, 0, 1.0])
    groups = np.array([0, 0, 0, 0, 1, 1, 1, 2])
    score = per_video(hits, groups)
    assert score.score == pytest.approx(np.mean([3 / 4, 1 / 3, 1]))
    found, rng = resampled([score], seed=3)[0], np.random.default_rng(3)
    for mean in found[:50]:
        drawn = rng.integers(8, size=8)
        classes = [hits[drawn][groups[drawn] == g].mean() for g in range(3) if (groups[drawn] == g).any()]
        assert mean == pytest.approx(np.mean(classes))


def test_videos_that_a_score_does_not_look_at_do_not_count():
    values = np.array([1, np.nan, 0, np.nan, 1, 1])
    whole, part = per_video(values), per_video(values[~np.isnan(values)])
    assert whole.score == part.score == 0.75
    none = per_video(np.full(6, np.nan))
    assert none.score is None
    assert intervals([none, whole])[0] is None
    low, high = intervals([none, whole])[1]
    assert 0 <= low < 0.75 < high <= 1


def test_a_rising_function_of_a_mean_has_its_ends():
    values = np.arange(10) / 10
    plain, doubled = intervals([per_video(values), per_video(values, then=lambda mean: 2 * mean)])
    np.testing.assert_allclose(doubled, np.multiply(plain, 2))


def test_blocks_make_no_difference(monkeypatch):
    scores = [per_video(np.arange(7.0)), per_video(np.arange(7) % 2.0, np.arange(7) % 3)]
    whole = resampled(scores)
    monkeypatch.setattr(module, "_BLOCK", 50)
    np.testing.assert_array_equal(resampled(scores), whole)


def test_intervals_hold_the_truth_nineteen_times_of_twenty():
    rng, held = np.random.default_rng(0), 0
    for _ in range(100):
        (found,) = intervals([per_video((rng.random(120) < 0.3).astype(float))])
        held += found[0] <= 0.3 <= found[1]
    assert 88 <= held <= 100


def test_the_paired_test_is_scipys():
    rng = np.random.default_rng(0)
    one = rng.random(60) < 0.7
    other = np.where(rng.random(60) < 0.2, rng.random(60) < 0.4, one)
    difference, (low, high), p = paired_difference(one.astype(float), other.astype(float))
    reference = stats.permutation_test(
        (one.astype(float), other.astype(float)),
        lambda a, b: np.mean(a - b),
        permutation_type="samples",
        n_resamples=5000,
        rng=2,
    )
    assert difference == pytest.approx(reference.statistic)
    assert low <= difference <= high
    assert p == pytest.approx(reference.pvalue, abs=0.02)


def test_the_same_scores_do_not_differ():
    hits = np.array([1, 0, 1, np.nan])
    assert paired_difference(hits, hits) == (0, [0, 0], 1)
    with pytest.raises(ValueError, match="the same videos, found 4 and 3"):
        paired_difference(hits, hits[:3])
    with pytest.raises(ValueError, match="no video in common"):
        paired_difference(hits, np.array([np.nan, np.nan, np.nan, 1]))


def test_shares_of_a_mean_of_class_means_have_it_as_their_mean():
    rng = np.random.default_rng(0)
    hits, groups = (rng.random(50) < 0.4).astype(float), rng.integers(0, 4, 50)
    hits[:7] = np.nan
    score = per_video(hits, groups)
    assert np.nanmean(score.shares) == pytest.approx(score.score)
    assert score.score != pytest.approx(np.nanmean(hits))
    assert per_video(hits).shares is not None and per_video(hits, then=lambda mean: 2 * mean).shares is None


def test_scores_are_told_to_the_last_digit():
    assert per_video(np.arange(40) < 37).score == 0.925


def test_scores_spread_over_more_videos_stay_as_they_are():
    score = PerVideo(np.array([1.0, 0, 1]), np.array([3, 5, 9]), np.array([0, 1, 1]))
    wide = score.over(np.arange(2, 12))
    assert wide.score == score.score == 0.75
    assert np.flatnonzero(~np.isnan(wide.values)).tolist() == [1, 3, 7]
