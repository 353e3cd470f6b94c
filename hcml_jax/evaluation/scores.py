"""Scores of extracted features: overall and by class family."""

from collections.abc import Mapping, Sequence

import numpy as np

from hcml_jax.evaluation.extract import Extracted
from hcml_jax.evaluation.linear import efficacy, linear_probe
from hcml_jax.evaluation.neighbours import knn_classify


def accuracy(predicted: np.ndarray, labels: np.ndarray) -> float:
    """The share of `predicted` equal to `labels`; both int `[N]`."""
    return float((predicted == labels).mean())


def family_accuracies(
    predicted: np.ndarray, labels: np.ndarray, classes: Sequence[str], families: Mapping[str, str]
) -> dict[str, float]:
    """Accuracy among the clips of each family that occurs, by family name."""
    family = np.array([families.get(name, "") for name in classes])[labels]
    names = sorted(set(family) - {""})
    return {name: accuracy(predicted[family == name], labels[family == name]) for name in names}


def confusion_matrix(predicted: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """Counts `[classes, classes]`; rows are true, columns predicted."""
    matrix = np.zeros((classes, classes), int)
    np.add.at(matrix, (labels, predicted), 1)
    return matrix


def feature_scores(
    train: Extracted,
    test: Extracted,
    neighbours: int,
    classes: Sequence[str],
    families: Mapping[str, str],
) -> dict[str, dict]:
    """Neighbours and probes of every feature.

    Returns:
      "knn" (centred), "knn_uncentred", "linear", "efficacy": feature name -> score; "families": family name ->
      {"knn": {feature name: score}, "linear": ...}.
    """
    scores = {"knn": {}, "knn_uncentred": {}, "linear": {}, "efficacy": {}, "families": {}}
    for name, gallery in train.features.items():
        queries = test.features[name]
        for key, centred in (("knn", True), ("knn_uncentred", False)):
            predicted = knn_classify(gallery, train.labels, queries, neighbours, centred=centred)
            scores[key][name] = accuracy(predicted, test.labels)
            if centred:
                _add_families(scores, "knn", name, predicted, test.labels, classes, families)
        fitted, predicted = linear_probe(gallery, train.labels, queries)
        scores["linear"][name] = accuracy(predicted, test.labels)
        _add_families(scores, "linear", name, predicted, test.labels, classes, families)
        scores["efficacy"][name] = efficacy(accuracy(fitted, train.labels), scores["linear"][name])
    return scores


def _add_families(scores, kind, name, predicted, labels, classes, families) -> None:
    for family, score in family_accuracies(predicted, labels, classes, families).items():
        scores["families"].setdefault(family, {}).setdefault(kind, {})[name] = score
