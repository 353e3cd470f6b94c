"""How sure a score is: bootstrap intervals over videos, and a paired test between two runs."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

RESAMPLES = 2000
TAILS = (0.025, 0.975)  # quantiles at the ends of an interval
_BLOCK = 2**24  # weights held at once


@dataclasses.dataclass(frozen=True)
class PerVideo:
    """A score that is a mean over videos, with the value of each video.

    Attributes:
      values: float `[N]`, one per video, such as 1 if it was recognised, or its end-point error; NaN for videos that
        the score leaves out.
      index: int `[N]`, the videos' rows in the table, increasing.
      groups: int `[N]`: the score is the mean of the groups' means (mean class accuracy); None: the plain mean.
      then: an increasing function from that mean to the score; it may return None.
    """

    values: np.ndarray
    index: np.ndarray
    groups: np.ndarray | None = None
    then: Callable[[float], float | None] = float

    @property
    def score(self) -> float | None:
        """The score over all videos; None where there are none."""
        means = _means(self, np.ones((1, len(self.values))))
        return None if np.isnan(means[0]) else self.then(float(means[0]))

    @property
    def shares(self) -> np.ndarray | None:
        """`[N]`, each video's contribution, whose plain mean is the score; None if `then` is not the identity."""
        if self.then is not float or self.groups is None:
            return self.values if self.then is float else None
        seen = ~np.isnan(self.values)
        counts = np.bincount(self.groups[seen], minlength=self.groups.max() + 1)
        weights = seen.sum() / (np.maximum(counts, 1) * max((counts > 0).sum(), 1))
        return self.values * weights[self.groups]

    def over(self, index: np.ndarray) -> "PerVideo":
        """Extend to the videos at these rows of the table, with NaN."""
        places = np.searchsorted(index, self.index)
        values = np.full(len(index), np.nan)
        values[places] = self.values
        groups = self.groups
        if groups is not None:
            groups = np.zeros(len(index), int)
            groups[places] = self.groups
        return dataclasses.replace(self, values=values, index=index, groups=groups)


def intervals(scores: Sequence[PerVideo], seed: int = 0) -> list[list[float | None] | None]:
    """95% intervals of scores over the same videos, by the percentiles of a bootstrap over videos.

    Args:
      scores: each over the same N videos.
      seed: of the 2,000 resamples; they are the same for all scores.

    Returns:
      [low, high] of each; None where it looks at no video.
    """
    pairs = zip(scores, resampled(scores, seed), strict=True)
    return [None if np.isnan(means).all() else [_end(score, means, q) for q in TAILS] for score, means in pairs]


def _end(score: PerVideo, means: np.ndarray, quantile: float) -> float | None:
    return score.then(float(np.nanquantile(means, quantile)))


def resampled(scores: Sequence[PerVideo], seed: int = 0) -> np.ndarray:
    """The mean of each score over each of 2,000 resamples of the videos: `[len(scores), 2000]`; NaN over none."""
    if not scores:
        return np.zeros((0, RESAMPLES))
    (videos,) = {len(score.values) for score in scores}
    rng, found = np.random.default_rng(seed), []
    size = max(1, _BLOCK // max(videos, 1))
    for first in range(0, RESAMPLES, size):
        count = min(size, RESAMPLES - first)
        weights = np.stack([np.bincount(rng.integers(videos, size=videos), minlength=videos) for _ in range(count)])
        found.append([_means(score, weights.astype(np.float32)) for score in scores])
    return np.concatenate(found, axis=1)


def _means(score: PerVideo, weights: np.ndarray) -> np.ndarray:
    """The score's mean under each row of weights."""
    seen = ~np.isnan(score.values)
    values, weights = score.values[seen].astype(weights.dtype), weights[:, seen]
    if score.groups is None:
        sums, counts = weights @ values, weights.sum(1)
    else:
        member = np.eye(score.groups.max() + 1, dtype=weights.dtype)[score.groups[seen]]
        sums, counts = weights @ (member * values[:, None]), weights @ member
    with np.errstate(invalid="ignore", divide="ignore"):
        means = sums / counts
    return means if score.groups is None else _mean_of_met(means)


def _mean_of_met(means: np.ndarray) -> np.ndarray:
    """The mean over columns that are numbers."""
    met = ~np.isnan(means)
    with np.errstate(invalid="ignore"):
        return np.where(met, means, 0).sum(1) / met.sum(1)


def paired_difference(one: np.ndarray, other: np.ndarray, seed: int = 0) -> tuple[float, list[float], float]:
    """The difference between two runs on the same videos.

    Args:
      one, other: `[N]` each, contributions of the same videos to either score; NaN if the score leaves a video out.
      seed: seed of the resamples and of the random signs.

    Returns:
      The mean of `one - other`; its 95% interval by a bootstrap over videos; the p-value of a paired permutation test:
      how often differences with random signs have a mean at least as far from 0.

    Raises:
      ValueError: the scores are not of the same number of videos, or share none.
    """
    if one.shape != other.shape:
        raise ValueError(f"one and other: expected the same videos, found {len(one)} and {len(other)}")
    difference = (one - other)[~np.isnan(one - other)]
    if not len(difference):
        raise ValueError("one and other have no video in common")
    (low_high,) = intervals([PerVideo(difference, np.arange(len(difference)))], seed)
    # Videos on which both agree change no sum.
    apart = difference[difference != 0]
    rng, mean = np.random.default_rng(seed), abs(apart.sum())
    signs = rng.integers(0, 2, (RESAMPLES, len(apart)), dtype=np.int8) * 2 - 1
    as_far = (abs(signs @ apart) >= mean * (1 - 1e-9)).sum()
    return float(difference.mean()), low_high, float((as_far + 1) / (RESAMPLES + 1))
