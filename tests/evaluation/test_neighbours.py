"""Neighbours against scikit-learn and plain sorting; ties; centring; memory."""

import tracemalloc

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from hcml_jax.evaluation import neighbours
from hcml_jax.evaluation.neighbours import knn_classify, nearest


def test_nearest_is_by_cosine():
    rng = np.random.default_rng(0)
    gallery, queries = rng.normal(size=(50, 6)), rng.normal(size=(9, 6))
    found = nearest(gallery, queries, 5, centred=False)
    for query, rows in zip(queries, found, strict=True):
        cosines = gallery @ query / np.linalg.norm(gallery, axis=1) / np.linalg.norm(query)
        np.testing.assert_array_equal(rows, np.argsort(-cosines)[:5])


@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("count", [1, 7, 20, 90, 100])
@pytest.mark.parametrize("block", [1, 16, 300, 2**22])
def test_nearest_in_blocks_is_as_sorted_at_once(monkeypatch, block, count, centred):
    """Features of +-1: cosines are exact, and most of them occur many times."""
    rng = np.random.default_rng(3)
    half, queries = (rng.choice([-1, 1], (n, 4)).astype(np.float32) for n in (45, 13))
    gallery = np.concatenate([half, -half])  # its mean is 0
    expected = np.argsort(-(queries @ gallery.T), axis=1, kind="stable")[:, :count]
    monkeypatch.setattr(neighbours, "BLOCK", block)
    np.testing.assert_array_equal(nearest(gallery, queries, count, centred=centred), expected)


def test_a_row_that_is_no_number_is_the_least_similar():
    gallery = np.array([[np.nan, 1], [-1, 0.5], [1, 0.5]])
    assert nearest(gallery, gallery[2:], 3, centred=False).tolist() == [[2, 1, 0]]


def test_memory_does_not_grow_with_the_similarities():
    features = np.random.default_rng(4).normal(size=(9000, 8)).astype(np.float32)
    tracemalloc.start()
    try:
        found = nearest(features, features, 1, centred=False)  # in float32
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    np.testing.assert_array_equal(found[:, 0], np.arange(9000))
    assert peak < 100 * 2**20  # the similarities alone: 309 MiB


def test_classes_are_those_of_scikit_learn():
    rng = np.random.default_rng(1)
    gallery, queries = rng.normal(size=(200, 5)), rng.normal(size=(50, 5))
    labels = rng.integers(0, 2, 200)  # two classes and an odd k: no ties
    reference = KNeighborsClassifier(7, metric="cosine").fit(gallery, labels)
    found = knn_classify(gallery, labels, queries, 7, centred=False)
    np.testing.assert_array_equal(found, reference.predict(queries))


def test_of_equal_counts_the_label_met_first_wins():
    gallery = np.array([[1, 0.0], [1, 0.1], [1, 0.2], [1, 0.3]])
    labels = np.array([2, 1, 1, 2])
    assert knn_classify(gallery, labels, gallery[:1], 4, centred=False).tolist() == [2]


def test_centring_takes_off_the_gallerys_mean():
    rng = np.random.default_rng(2)
    gallery, queries = rng.normal(size=(30, 4)), rng.normal(size=(5, 4))
    shifted = nearest(gallery + 100, queries + 100, 3)
    np.testing.assert_array_equal(shifted, nearest(gallery, queries, 3))
