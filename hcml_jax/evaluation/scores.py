"""Scores of extracted features by neighbours and by linear probes: overall and by class family."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hcml_jax.evaluation.extract import Extracted
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


def linear_probe(features: np.ndarray, labels: np.ndarray, queries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Fits multinomial logistic regression on standardised features.

    Args:
      features: `[N, C]`, to learn from.
      labels: int `[N]`.
      queries: `[Q, C]`.

    Returns:
      Predicted labels of `features` `[N]` and of `queries` `[Q]`.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000, tol=1e-3))
    probe.fit(features, labels)
    return probe.predict(features), probe.predict(queries)


def efficacy(train_accuracy: float, test_accuracy: float) -> float | None:
    """Acc_train / (Acc_train - Acc_test): discriminative and general at once (HCML 4.1); None without a gap."""
    gap = train_accuracy - test_accuracy
    return train_accuracy / gap if gap > 0 else None


def neighbour_scores(
    train: Extracted, test: Extracted, classes: Sequence[str], families: Mapping[str, str], neighbours: int
) -> dict[str, dict]:
    """Of every feature: "knn" (centred) and "knn_uncentred": name -> score; "families": family -> "knn" likewise."""
    found = {"knn": {}, "knn_uncentred": {}, "families": {}}
    for name, gallery in train.features.items():
        for kind, centred in (("knn", True), ("knn_uncentred", False)):
            predicted = knn_classify(gallery, train.labels, test.features[name], neighbours, centred=centred)
            found[kind][name] = accuracy(predicted, test.labels)
            if centred:
                _add_families(found, kind, name, predicted, test.labels, classes, families)
    return found


def probe_scores(
    train: Extracted, test: Extracted, classes: Sequence[str], families: Mapping[str, str]
) -> dict[str, dict]:
    """Of every feature: "linear" and "efficacy": name -> score; "families": family -> "linear" likewise."""
    found = {"linear": {}, "efficacy": {}, "families": {}}
    for name, gallery in train.features.items():
        fitted, predicted = linear_probe(gallery, train.labels, test.features[name])
        found["linear"][name] = accuracy(predicted, test.labels)
        _add_families(found, "linear", name, predicted, test.labels, classes, families)
        found["efficacy"][name] = efficacy(accuracy(fitted, train.labels), found["linear"][name])
    return found


def merge(results: dict[str, Any], found: Mapping[str, Any]) -> None:
    """Adds nested `found` to `results`."""
    for name, value in found.items():
        if isinstance(value, Mapping):
            merge(results.setdefault(name, {}), value)
        else:
            results[name] = value


def _add_families(found, kind, name, predicted, labels, classes, families) -> None:
    for family, score in family_accuracies(predicted, labels, classes, families).items():
        found["families"].setdefault(family, {}).setdefault(kind, {})[name] = score
