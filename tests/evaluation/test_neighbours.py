"""Neighbours against scikit-learn; ties; centring."""

import numpy as np
from sklearn.neighbors import KNeighborsClassifier

from hcml_jax.evaluation.neighbours import knn_classify, nearest


def test_nearest_is_by_cosine():
    rng = np.random.default_rng(0)
    gallery, queries = rng.normal(size=(50, 6)), rng.normal(size=(9, 6))
    found = nearest(gallery, queries, 5, centred=False)
    for query, rows in zip(queries, found, strict=True):
        cosines = gallery @ query / np.linalg.norm(gallery, axis=1) / np.linalg.norm(query)
        np.testing.assert_array_equal(rows, np.argsort(-cosines)[:5])


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
