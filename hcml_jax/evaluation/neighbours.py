"""Retrieval and nearest-neighbour classification by cosine similarity (HCML 4.3)."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

BLOCK = 2**22  # numbers in a block of features or of similarities; some 100 MB are held at once


class Nearest(NamedTuple):
    """Rows of a gallery, most similar first.

    Attributes:
      rows: int `[Q, K]`; of equally similar rows, lower ones come first.
      cosines: float `[Q, K]`.
    """

    rows: np.ndarray
    cosines: np.ndarray


def nearest(gallery: np.ndarray, queries: np.ndarray, count: int, *, centred: bool = True) -> Nearest:
    """The `count` most similar gallery rows of each query.

    Args:
      gallery: `[G, C]`.
      queries: `[Q, C]`.
      count: K.
      centred: whether the gallery's mean is first subtracted from both. Published implementations differ in this.

    Raises:
      ValueError: K is not in 1..G.
    """
    gallery, queries = _floating(gallery), _floating(queries)
    if not 1 <= count <= len(gallery):
        raise ValueError(f"expected 1 to {len(gallery)} neighbours out of a gallery of {len(gallery)}, found {count}")
    mean = gallery.mean(0, dtype=np.float64).astype(gallery.dtype) if centred else 0
    size = max(1, BLOCK // max(math.isqrt(BLOCK) + count, gallery.shape[1]))
    blocks = range(0, len(queries), size)
    found = [_nearest(gallery, mean, _unit(queries[i : i + size] - mean), count) for i in blocks]
    if not found:
        return Nearest(np.empty((0, count), int), np.empty((0, count), np.float32))
    return Nearest(*map(np.concatenate, zip(*found, strict=True)))


def knn_classify(
    gallery: np.ndarray,
    labels: np.ndarray,
    queries: np.ndarray,
    neighbours: int,
    *,
    centred: bool = True,
    temperature: float | None = None,
) -> np.ndarray:
    """The label for which most of each query's nearest gallery rows vote.

    Args:
      gallery: `[G, C]`.
      labels: int `[G]`, 0 or more.
      queries: `[Q, C]`.
      neighbours: k, at most G.
      centred: see `nearest`.
      temperature: see `vote`.

    Returns:
      int `[Q]`.

    Raises:
      ValueError: k is not in 1..G.
    """
    found = nearest(gallery, queries, neighbours, centred=centred)
    return vote(np.asarray(labels)[found.rows], found.cosines, temperature)


def vote(labels: np.ndarray, cosines: np.ndarray, temperature: float | None = None) -> np.ndarray:
    """The label with the most votes in each row of `labels` `[Q, k]`; of equal ones, the label that occurs first.

    A neighbour has one vote or, with a temperature, exp(cosine / temperature) votes (Wu et al., 2018, section 3.4).
    """
    counts = np.zeros((len(labels), labels.max(initial=0) + 1))
    if temperature is None:
        # Earlier neighbours have slightly larger weights, too little to overturn a majority.
        votes = np.broadcast_to(1.0 + 1e-3 * 0.5 ** np.arange(1, labels.shape[1] + 1), labels.shape)
    else:
        votes = np.exp((cosines - cosines[:, :1]) / temperature)
    np.add.at(counts, (np.arange(len(labels))[:, None], labels), votes)
    return counts.argmax(1)


def retrieval_recall(
    gallery: np.ndarray,
    labels: np.ndarray,
    queries: np.ndarray,
    query_labels: np.ndarray,
    ks: Sequence[int],
    *,
    centred: bool = True,
) -> dict[int, float]:
    """R@k: the share of queries with one of their own class among their k nearest gallery rows (HCML Figure 5).

    Args:
      gallery: `[G, C]`.
      labels: int `[G]`.
      queries: `[Q, C]`.
      query_labels: int `[Q]`.
      ks: each at most G.
      centred: see `nearest`.

    Raises:
      ValueError: a k is not in 1..G.
    """
    found = nearest(gallery, queries, max(ks), centred=centred)
    labels, query_labels = np.asarray(labels), np.asarray(query_labels)
    return {k: float(hits.mean()) for k, hits in recalled(labels[found.rows], query_labels, ks).items()}


def recalled(retrieved: np.ndarray, labels: np.ndarray, ks: Sequence[int]) -> dict[int, np.ndarray]:
    """k -> bool `[Q]`, whether one of the first k of `retrieved` `[Q, K]` is the query's label."""
    met = np.logical_or.accumulate(retrieved == labels[:, None], axis=1)
    return {k: met[:, k - 1] for k in ks}


def _nearest(gallery, mean, queries: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The same for a block of normalised queries, by blocks of the gallery."""
    similarities, rows = queries[:, :0], np.empty((len(queries), 0), int)
    size = max(1, BLOCK // max(math.isqrt(BLOCK), gallery.shape[1]))
    for i in range(0, len(gallery), size):
        block = queries @ _unit(gallery[i : i + size] - mean).T
        columns = _largest(block, count)
        similarities = np.hstack([similarities, np.take_along_axis(block, columns, 1)])
        rows = np.hstack([rows, i + columns])
        order = np.argsort(-similarities, axis=1, kind="stable")[:, :count]
        similarities, rows = (np.take_along_axis(x, order, 1) for x in (similarities, rows))
    return rows, similarities


def _largest(x: np.ndarray, count: int) -> np.ndarray:
    """Columns of the `count` largest values of each row, in column order; ties go to the left; NaN is smallest."""
    np.nan_to_num(x, copy=False, nan=-np.inf)
    count = min(count, x.shape[1])
    least = np.partition(x, -count, axis=1)[:, -count, None]
    above, equal = x > least, x == least
    room = count - above.sum(1, keepdims=True)
    chosen = above | (equal & (equal.cumsum(1, dtype=np.int32) <= room))
    return chosen.nonzero()[1].reshape(-1, count)


def _floating(x) -> np.ndarray:
    """In float32 at least."""
    x = np.asarray(x)
    return x.astype(np.promote_types(x.dtype, np.float32), copy=False)


def _unit(x: np.ndarray) -> np.ndarray:
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
