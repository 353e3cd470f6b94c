"""Protocols on features whose answers are known."""

import types

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, top_k_accuracy_score

from hcml_jax.evaluation.feature_files import Extracted
from hcml_jax.evaluation.protocols.hits import by_class, by_family, mean_class_accuracy, merge
from hcml_jax.evaluation.protocols.recognition import average_views, in_top

RNG = np.random.default_rng(0)


def extracted(labels):
    return Extracted.of({"index": np.arange(len(labels)), "label": np.asarray(labels)})


def test_top_five_is_scikit_learns():
    scores, labels = RNG.normal(size=(60, 9)), np.arange(60) % 9
    for k in (1, 5):
        assert in_top(scores, labels, k).mean() == top_k_accuracy_score(labels, scores, k=k)


def test_of_equal_scores_the_first_counts():
    assert in_top(np.zeros((1, 8)), np.array([4]), 5).all()
    assert not in_top(np.zeros((1, 8)), np.array([5]), 5).any()


def test_mean_class_accuracy_is_scikit_learns():
    labels = RNG.integers(0, 5, 80)
    predicted = np.where(RNG.random(80) < 0.5, labels, RNG.integers(0, 5, 80))
    found = mean_class_accuracy(predicted == labels, extracted(labels))
    assert found.score == pytest.approx(balanced_accuracy_score(labels, predicted))


def test_views_are_averaged_after_the_softmax_or_before():
    """By hand: one sure view and two slightly against it."""
    logits = np.log([[[0.98, 0.02], [0.4, 0.6], [0.4, 0.6]]])
    np.testing.assert_allclose(average_views(logits, "probabilities"), [[1.78 / 3, 1.22 / 3]])
    expected = [np.log([0.98 * 0.4 * 0.4, 0.02 * 0.6 * 0.6]) / 3]
    np.testing.assert_allclose(average_views(logits, "scores"), expected)


def test_classes_and_families_are_scored_apart():
    data = types.SimpleNamespace(classes=("a", "b", "c", "d"), families={"a": "one", "b": "one", "c": "two"})
    labels, predicted = np.array([0, 1, 2, 2, 3]), np.array([0, 0, 2, 2, 0])
    hits, test = predicted == labels, extracted(labels)
    scores = lambda found: {name: score.score for name, score in found.items()}  # noqa: E731
    assert scores(by_family(hits, test, data)) == {"one": 0.5, "two": 1.0}
    assert scores(by_class(hits, test, data.classes)) == {"a": 1, "b": 0, "c": 1, "d": 0}


def test_results_are_merged_in_depth():
    results = {"knn": {"a": 1}, "top1": 2}
    assert merge(results, {"knn": {"b": 3}, "linear": {"a": 4}}) is results
    assert results == {"knn": {"a": 1, "b": 3}, "top1": 2, "linear": {"a": 4}}
