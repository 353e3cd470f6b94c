"""Scores of predicted classes."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from hcml_jax.batch import Data
from hcml_jax.evaluation.feature_files import Extracted
from hcml_jax.evaluation.intervals import PerVideo


def accuracy(hits: np.ndarray, test: Extracted, then: Callable = float) -> PerVideo:
    """The share of test videos that were hit: bool `[N]`."""
    return PerVideo(hits.astype(float), test.index, then=then)


def mean_class_accuracy(hits: np.ndarray, test: Extracted) -> PerVideo:
    """The accuracy of each class, averaged over the classes that have test videos."""
    return PerVideo(hits.astype(float), test.index, groups=test.labels)


def by_family(hits: np.ndarray, test: Extracted, data: Data) -> dict[str, PerVideo]:
    """Accuracy among the videos of each family that occurs."""
    return _by(hits, test, [data.families.get(name, "") for name in data.classes])


def by_class(hits: np.ndarray, test: Extracted, classes: Sequence[str]) -> dict[str, PerVideo]:
    """Accuracy among the videos of each class that occurs."""
    return _by(hits, test, classes)


def _by(hits: np.ndarray, test: Extracted, names: Sequence[str]) -> dict[str, PerVideo]:
    of_video = np.array(names)[test.labels]
    found = sorted(set(of_video.tolist()) - {""})
    return {name: PerVideo(np.where(of_video == name, hits, np.nan), test.index) for name in found}


def merge(results: dict[str, Any], found: Mapping[str, Any]) -> dict[str, Any]:
    """Adds nested `found` to `results`, and gives them back."""
    for name, value in found.items():
        if isinstance(value, Mapping):
            merge(results.setdefault(name, {}), value)
        else:
            results[name] = value
    return results
