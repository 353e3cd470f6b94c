"""Retrieval from the test split to the training split: R@k (HCML Figure 5, MSCL Table 8, FIMA Table 6)."""

from collections.abc import Iterator
from typing import Any

from hcml_jax.evaluation.neighbours import recalled
from hcml_jax.evaluation.protocols.hits import accuracy
from hcml_jax.evaluation.subject import REPRESENTATION, Subject


def parts(subject: Subject) -> Iterator:
    """ "retrieval" and "retrieval_uncentred": feature -> k -> R@k."""
    if subject.labelled:
        yield (
            "retrieval",
            lambda: {
                kind: {name: _recall(subject, name, centred) for name in subject.names(REPRESENTATION)}
                for kind, centred in (("retrieval", True), ("retrieval_uncentred", False))
            },
        )


def _recall(subject: Subject, name: str, centred: bool) -> dict[str, Any]:
    test, found = subject.test(REPRESENTATION), subject.nearest(REPRESENTATION, name, centred=centred)
    labels = subject.gallery(REPRESENTATION).labels[found.rows]
    hits = recalled(labels, test.labels, subject.usable(subject.config.recall_at))
    return {str(k): accuracy(hit, test) for k, hit in hits.items()}
