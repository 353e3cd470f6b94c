"""Retrieval from the test split to the training split: R@k (HCML Figure 5, MSCL Table 8, FIMA Table 6)."""

import functools
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from hcml_jax.evaluation.neighbours import recalled
from hcml_jax.evaluation.protocols.features import beside, scores
from hcml_jax.evaluation.protocols.hits import accuracy
from hcml_jax.evaluation.subject import REPRESENTATION, Subject


def parts(subject: Subject) -> Iterator:
    """ "retrieval" of every source, centred: feature -> k -> R@k; of the representation "retrieval_uncentred" too."""
    if subject.labelled:
        yield "retrieval", lambda: scores(subject, "retrieval", hits, REPRESENTATION) | _uncentred(subject)
        for source in subject.sources[1:]:
            yield f"retrieval, {source}", functools.partial(beside, subject, "retrieval", hits, source)


def hits(subject: Subject, source: str, name: str, control: str = "", centred: bool = True) -> dict[str, np.ndarray]:
    """k -> which test videos have one of their class among their k nearest."""
    test, found = subject.test(source, control), subject.nearest(source, name, centred=centred, control=control)
    labels = subject.gallery(source).labels[found.rows]
    return {str(k): hit for k, hit in recalled(labels, test.labels, subject.usable(subject.config.recall_at)).items()}


def _uncentred(subject: Subject) -> dict[str, Any]:
    test, names = subject.test(REPRESENTATION), subject.names(REPRESENTATION)
    found = {name: hits(subject, REPRESENTATION, name, centred=False) for name in names}
    return {"retrieval_uncentred": jax.tree.map(lambda hit: accuracy(hit, test), found)}
