"""Top-1, top-5 and mean class accuracy of the classifier, over one or several views (HCML Tables 2-4)."""

import functools
from collections.abc import Iterator
from typing import Any

import numpy as np
from scipy.special import softmax

from hcml_jax.evaluation.feature_files import Extracted
from hcml_jax.evaluation.protocols.hits import accuracy, by_family, mean_class_accuracy
from hcml_jax.evaluation.subject import LAST, Subject


def parts(subject: Subject) -> Iterator:
    """One for each way to see a video, if the network has learnt to classify."""
    if subject.networks.recognises:
        for views in subject.config.views:
            yield f"recognition, {views}", functools.partial(recognise, subject, views)


def recognise(subject: Subject, views: str, control: str = "") -> dict[str, Any]:
    """ "top1", "top5", "mean_class_accuracy" and, by family, "top1"; under "views" those of all views but the first."""
    test = subject.extracted(LAST, subject.config.split, control, views)
    scores = average_views(test.logits, subject.config.average)
    if subject.method.classifiers:
        chosen, report = select(subject)
        found = _recognised(subject, test, scores[:, chosen])
        each = {name: _recognised(subject, test, scores[:, i]) for i, name in enumerate(subject.method.classifiers)}
        found |= {"classifiers": each, "selected": report}
    else:
        found = _recognised(subject, test, scores)
    return found if views == subject.config.views[0] else {"views": {views: found}}


def select(subject: Subject) -> tuple[int, dict[str, Any]]:
    """The index of the best classifier on the split `selection`, with the first views; and a report of the choice.

    Given variables keep the classifier that their own run chose.
    """
    given = subject.networks.given
    if given and given.chosen:
        index = subject.method.classifiers.index(given.chosen)
        return index, {"classifier": given.chosen, "chosen_in": given.path}
    held_out = subject.extracted(LAST, subject.config.selection)
    predicted = average_views(held_out.logits, subject.config.average).argmax(-1)
    shares = (predicted == held_out.labels[:, None]).mean(0)
    names = subject.method.classifiers
    report = {"classifier": names[shares.argmax()], "split": subject.config.selection}
    return int(shares.argmax()), report | {"top1": dict(zip(names, shares.tolist(), strict=True))}


def _recognised(subject: Subject, test: Extracted, scores: np.ndarray) -> dict[str, Any]:
    hits = scores.argmax(1) == test.labels
    found = {"top1": accuracy(hits, test), "mean_class_accuracy": mean_class_accuracy(hits, test)}
    if scores.shape[1] > 5:
        found["top5"] = accuracy(in_top(scores, test.labels, 5), test)
    families = {name: {"top1": score} for name, score in by_family(hits, test, subject.data).items()}
    return found | ({"families": families} if families else {})


def average_views(logits: np.ndarray, average: str) -> np.ndarray:
    """Class scores `[N, ...]`: those of views `[N, V, ..., classes]`, averaged as "probabilities" or "scores"."""
    return (softmax(logits, axis=-1) if average == "probabilities" else logits).mean(1)


def in_top(scores: np.ndarray, labels: np.ndarray, k: int) -> np.ndarray:
    """bool `[N]`: whether the label is among the k highest scores; of equal scores, earlier classes rank first."""
    own = np.take_along_axis(scores, labels[:, None], 1)
    before = (scores == own) & (np.arange(scores.shape[1]) < labels[:, None])
    return ((scores > own) | before).sum(1) < k
