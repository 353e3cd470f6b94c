"""Retrieval and nearest-neighbour classification by cosine similarity (HCML 4.3)."""

import numpy as np


def nearest(
    gallery: np.ndarray, queries: np.ndarray, count: int, *, centred: bool = True
) -> np.ndarray:
    """The most similar gallery rows of each query, most similar first.

    Args:
      gallery: `[G, C]`.
      queries: `[Q, C]`.
      count: how many; at most G.
      centred: whether the gallery's mean is taken off both first. Published codes differ in this.

    Returns:
      int `[Q, min(count, G)]`, rows of the gallery.
    """
    mean = gallery.mean(0) if centred else np.zeros(gallery.shape[1])
    similarity = _unit(queries - mean) @ _unit(gallery - mean).T
    return np.argsort(-similarity, axis=1, kind="stable")[:, :count]


def knn_classify(
    gallery: np.ndarray,
    labels: np.ndarray,
    queries: np.ndarray,
    neighbours: int,
    *,
    centred: bool = True,
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
    ranks = np.arange(votes.shape[1])
    counts = np.zeros((len(queries), labels.max() + 1))
    # An earlier neighbour weighs more by too little to overturn a majority.
    weights = 1.0 + 1e-3 * (0.5 ** (1 + ranks))
    np.add.at(counts, (np.arange(len(queries))[:, None], votes), weights)
    return counts.argmax(1)


def _unit(x: np.ndarray) -> np.ndarray:
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
