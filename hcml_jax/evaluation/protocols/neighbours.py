"""Nearest-neighbour classification of features (HCML Table 6, supplement Table 7)."""

import functools
import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np

from hcml_jax.evaluation.feature_files import Extracted
from hcml_jax.evaluation.neighbours import knn_classify, vote
from hcml_jax.evaluation.protocols.features import compared
from hcml_jax.evaluation.protocols.hits import accuracy, by_class, merge
from hcml_jax.evaluation.subject import REPRESENTATION, Subject

GAINING = 5  # classes that are named


def parts(subject: Subject) -> Iterator:
    """ "knn" of every source: centred, one vote each, the first k; for the representation, all variants."""
    return compared(subject, "neighbours", "knn", hits, _more)


def hits(
    subject: Subject,
    source: str,
    name: str,
    control: str = "",
    few_labels: bool = False,
    *,
    k: int = 0,
    centred: bool = True,
    temperature: float | None = None,
) -> np.ndarray:
    """Which test videos the neighbours by a feature classify correctly; k 0: the first k of the config."""
    test, k = subject.test(source, control), k or subject.config.neighbours[0]
    if few_labels:
        few = subject.few_labels(source)
        k = min(k, len(few.index))
        return knn_classify(few.feature(name), few.labels, test.feature(name), k) == test.labels
    found = subject.nearest(source, name, centred=centred, control=control)
    labels = subject.gallery(source).labels[found.rows[:, :k]]
    return vote(labels, found.cosines[:, :k], temperature) == test.labels


def _more(subject: Subject) -> dict[str, Any]:
    """Scores with weighted votes, without centring, with every other k; by class, and the classes that gain most."""
    config, test = subject.config, subject.test(REPRESENTATION)
    ways = {("knn_weighted",): {"temperature": config.temperature}, ("knn_uncentred",): {"centred": False}}
    ways |= {("knn_by_k", str(k)): {"k": k} for k in subject.usable(config.neighbours[1:])}
    found, hits_of = {}, {}
    for name in subject.names(REPRESENTATION):
        hits_of[name] = plain = hits(subject, REPRESENTATION, name)
        merge(found, {"classes": {"knn": {name: by_class(plain, test, subject.data.classes)}}})
        for way, options in ways.items():
            score = {name: accuracy(hits(subject, REPRESENTATION, name, **options), test)}
            merge(found, functools.reduce(lambda inner, key: {key: inner}, reversed(way), score))
    return found | {"gains": _gains(hits_of, test, subject.data.classes)}


def _gains(hits_of: dict[str, np.ndarray], test: Extracted, classes: tuple[str, ...]) -> dict[str, Any]:
    """The classes that gain most from each level to the next."""
    found = {}
    levels = sorted(hits_of.keys() - {"backbone"})
    for low, high in itertools.pairwise(levels):
        gains = by_class(hits_of[high].astype(float) - hits_of[low], test, classes)
        most = sorted(gains, key=lambda name: -gains[name].score)[:GAINING]
        found[f"{low} to {high}"] = {name: gains[name] for name in most}
    return found
