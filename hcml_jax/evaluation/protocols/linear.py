"""Linear probes on extracted features, and the efficacy score (HCML Table 1, MSCL Table 6)."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from hcml_jax.evaluation.probe import efficacy, fit_probe
from hcml_jax.evaluation.protocols.features import compared
from hcml_jax.evaluation.protocols.hits import accuracy
from hcml_jax.evaluation.subject import REPRESENTATION, Subject


def parts(subject: Subject) -> Iterator:
    """ "linear" of every source, and "efficacy" of the representation."""
    return compared(subject, "linear probes", "linear", hits, _more)


def hits(subject: Subject, source: str, name: str, control: str = "", few_labels: bool = False) -> np.ndarray:
    """Which test videos the probe of a feature classifies rightly."""
    test = subject.test(source, control)
    few = subject.few_labels(source) if few_labels else None
    probe = fit_probe(few.feature(name), few.labels) if few else subject.probe(source, name)
    return probe.predict(test.feature(name)) == test.labels


def _more(subject: Subject) -> dict[str, Any]:
    test, scores = subject.test(REPRESENTATION), {}
    for name in subject.names(REPRESENTATION):
        train_accuracy = subject.probe(REPRESENTATION, name).train_accuracy
        then = lambda share, reached=train_accuracy: efficacy(reached, share)  # noqa: E731
        scores[name] = accuracy(hits(subject, REPRESENTATION, name), test, then)
    return {"efficacy": scores}
