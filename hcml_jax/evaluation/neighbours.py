"""Retrieval and nearest-neighbour classification by cosine similarity (HCML 4.3)."""

import math

import numpy as np

BLOCK = 2**22  # numbers in a block of features or of similarities; some 100 MB are held at once


def nearest(gallery: np.ndarray, queries: np.ndarray, count: int, *, centred: bool = True) -> np.ndarray:
    """The most similar gallery rows of each query, most similar first.

    Args:
      gallery: `[G, C]`.
      queries: `[Q, C]`.
      count: how many; at most G.
      centred: whether the gallery's mean is taken off both first. Published codes differ in this.

    Returns:
      int `[Q, min(count, G)]`, rows of the gallery; of equally similar ones the first comes first.
    """
    mean = gallery.mean(0) if centred else 0
    size = max(1, BLOCK // max(math.isqrt(BLOCK) + count, gallery.shape[1]))
    found = np.empty((len(queries), min(count, len(gallery))), int)
    for i in range(0, len(queries), size):
        found[i : i + size] = _nearest(gallery, mean, _unit(queries[i : i + size] - mean), count)
    return found


def knn_classify(
    gallery: np.ndarray, labels: np.ndarray, queries: np.ndarray, neighbours: int, *, centred: bool = True
) -> np.ndarray:
    """The majority label of each query's nearest gallery rows; of equal counts, the label met first.

    Args:
      gallery: `[G, C]`.
      labels: int `[G]`, 0 or more.
      queries: `[Q, C]`.
      neighbours: k.
      centred: see `nearest`.

    Returns:
      int `[Q]`.
    """
    votes = labels[nearest(gallery, queries, neighbours, centred=centred)]
    counts = np.zeros((len(queries), labels.max() + 1))
    # An earlier neighbour weighs more by too little to overturn a majority.
    weights = 1.0 + 1e-3 * 0.5 ** np.arange(1, votes.shape[1] + 1)
    np.add.at(counts, (np.arange(len(queries))[:, None], votes), weights)
    return counts.argmax(1)


def _nearest(gallery, mean, queries: np.ndarray, count: int) -> np.ndarray:
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
    return rows


def _largest(x: np.ndarray, count: int) -> np.ndarray:
    """Columns of the `count` largest of each row, from left to right; of equal ones the leftmost; NaN counts least."""
    np.nan_to_num(x, copy=False, nan=-np.inf)
    count = min(count, x.shape[1])
    least = np.partition(x, -count, axis=1)[:, -count, None]
    above, equal = x > least, x == least
    room = count - above.sum(1, keepdims=True)
    chosen = above | (equal & (equal.cumsum(1, dtype=np.int32) <= room))
    return chosen.nonzero()[1].reshape(-1, count)


def _unit(x: np.ndarray) -> np.ndarray:
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
