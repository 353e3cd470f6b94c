"""Neighbours against scikit-learn and plain sorting; ties; centring; memory."""

import tracemalloc

import numpy as np
import pytest
from sklearn.metrics import top_k_accuracy_score
from sklearn.neighbors import KNeighborsClassifier

from hcml_jax.evaluation import knn_classify, neighbours, retrieval_recall
from hcml_jax.evaluation.neighbours import nearest


def test_nearest_is_by_cosine():
    rng = np.random.default_rng(0)
    gallery, queries = rng.normal(size=(50, 6)), rng.normal(size=(9, 6))
    found = nearest(gallery, queries, 5, centred=False)
    for query, rows, cosines in zip(queries, *found, strict=True):
        expected = gallery @ query / np.linalg.norm(gallery, axis=1) / np.linalg.norm(query)
        np.testing.assert_array_equal(rows, np.argsort(-expected)[:5])
        np.testing.assert_allclose(cosines, np.sort(expected)[:-6:-1])


@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("count", [1, 7, 20, 90])
@pytest.mark.parametrize("block", [1, 16, 300, 2**22])
def test_nearest_in_blocks_is_as_sorted_at_once(monkeypatch, block, count, centred):
    """Features of +-1: cosines are exact, and most of them occur many times."""
    rng = np.random.default_rng(3)
    half, queries = (rng.choice([-1, 1], (n, 4)).astype(np.float32) for n in (45, 13))
    gallery = np.concatenate([half, -half])  # its mean is 0
    expected = np.argsort(-(queries @ gallery.T), axis=1, kind="stable")[:, :count]
    monkeypatch.setattr(neighbours, "BLOCK", block)
    np.testing.assert_array_equal(nearest(gallery, queries, count, centred=centred).rows, expected)


def test_a_row_that_is_no_number_is_the_least_similar():
    gallery = np.array([[np.nan, 1], [-1, 0.5], [1, 0.5]])
    assert nearest(gallery, gallery[2:], 3, centred=False).rows.tolist() == [[2, 1, 0]]


def test_memory_does_not_grow_with_the_similarities():
    features = np.random.default_rng(4).normal(size=(9000, 8)).astype(np.float32)
    tracemalloc.start()
    try:
        found = nearest(features, features, 1, centred=False)  # in float32
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    np.testing.assert_array_equal(found.rows[:, 0], np.arange(9000))
    assert peak < 100 * 2**20  # the similarities alone: 309 MiB


def test_classes_are_those_of_scikit_learn():
    rng = np.random.default_rng(1)
    gallery, queries = rng.normal(size=(200, 5)), rng.normal(size=(50, 5))
    labels = rng.integers(0, 2, 200)  # two classes and an odd k: no ties
    reference = KNeighborsClassifier(7, metric="cosine").fit(gallery, labels)
    found = knn_classify(gallery, labels, queries, 7, centred=False)
    np.testing.assert_array_equal(found, reference.predict(queries))


def test_whole_numbers_half_precision_and_lists_are_taken():
    rng = np.random.default_rng(3)
    gallery, queries = rng.integers(0, 256, (40, 6)), rng.integers(0, 256, (9, 6))
    labels = (np.arange(40) % 3).tolist()
    expected = knn_classify(gallery.astype(float), np.array(labels), queries.astype(float), 5)
    for dtype in (np.uint8, np.float16, int):
        np.testing.assert_array_equal(knn_classify(gallery.astype(dtype), labels, queries.astype(dtype), 5), expected)
    assert 0 <= retrieval_recall(gallery.tolist(), labels, queries.tolist(), [0] * 9, (1, 5))[5] <= 1


def test_of_equal_counts_the_label_met_first_wins():
    gallery = np.array([[1, 0.0], [1, 0.1], [1, 0.2], [1, 0.3]])
    labels = np.array([2, 1, 1, 2])
    assert knn_classify(gallery, labels, gallery[:1], 4, centred=False).tolist() == [2]


def test_centring_takes_off_the_gallerys_mean():
    rng = np.random.default_rng(2)
    gallery, queries = rng.normal(size=(30, 4)), rng.normal(size=(5, 4))
    shifted = nearest(gallery + 100, queries + 100, 3).rows
    np.testing.assert_array_equal(shifted, nearest(gallery, queries, 3).rows)


def test_weighted_votes_are_those_of_scikit_learn():
    rng = np.random.default_rng(5)
    gallery, queries = rng.normal(size=(200, 5)), rng.normal(size=(50, 5))
    labels = rng.integers(0, 4, 200)
    weights = lambda distances: np.exp((1 - distances) / 0.07)  # noqa: E731
    reference = KNeighborsClassifier(20, metric="cosine", weights=weights).fit(gallery, labels)
    found = knn_classify(gallery, labels, queries, 20, centred=False, temperature=0.07)
    np.testing.assert_array_equal(found, reference.predict(queries))
    assert (found != knn_classify(gallery, labels, queries, 20, centred=False)).any()


def test_votes_of_a_low_temperature_do_not_overflow():
    gallery = np.array([[1, 0.0], [1, 0.5], [0, 1]], np.float32)
    assert knn_classify(gallery, np.array([1, 0, 2]), gallery, 3, centred=False, temperature=1e-4).tolist() == [1, 0, 2]


def test_recall_is_scikit_learns_top_k_accuracy():
    """With one gallery row a class, R@k is the top-k accuracy of the cosines as scores."""
    rng = np.random.default_rng(6)
    gallery, query_labels = rng.normal(size=(12, 7)), np.arange(40) % 12
    queries = gallery[query_labels] + rng.normal(size=(40, 7))
    cosines = queries @ gallery.T / np.linalg.norm(gallery, axis=1)
    found = retrieval_recall(gallery, np.arange(12), queries, query_labels, (1, 3, 12), centred=False)
    expected = {k: top_k_accuracy_score(query_labels, cosines, k=k) for k in (1, 3)} | {12: 1.0}
    assert found == expected
    assert 0 < found[1] < found[3] < 1


def test_recall_counts_any_of_the_class_and_may_centre():
    rng = np.random.default_rng(7)
    gallery, queries = rng.normal(size=(60, 4)) + 3, rng.normal(size=(30, 4)) + 3
    labels, query_labels = rng.integers(0, 5, 60), rng.integers(0, 5, 30)
    for centred in (True, False):
        offset = gallery.mean(0) if centred else 0
        moved, asked = gallery - offset, queries - offset
        hits = []
        for query, label in zip(asked, query_labels, strict=True):
            cosines = moved @ query / np.linalg.norm(moved, axis=1)
            hits.append(label in labels[np.argsort(-cosines)[:2]])
        found = retrieval_recall(gallery, labels, queries, query_labels, [2], centred=centred)
        assert found == {2: np.mean(hits)}


def test_more_neighbours_than_there_are_is_an_error():
    gallery = np.eye(3)
    with pytest.raises(ValueError, match="1 to 3 neighbours out of a gallery of 3, found 4"):
        knn_classify(gallery, np.arange(3), gallery, 4)
    with pytest.raises(ValueError, match="found 5"):
        retrieval_recall(gallery, np.arange(3), gallery, np.arange(3), (1, 5))
