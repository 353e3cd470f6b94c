"""What the protocols of features share: every feature of every source, classified in one way."""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from hcml_jax.evaluation.intervals import PerVideo
from hcml_jax.evaluation.protocols.hits import accuracy, by_family, merge
from hcml_jax.evaluation.subject import REPRESENTATION, Subject

# (subject, source, feature's name, control="", few_labels=False) -> bool [N], or a dictionary of such
Hits = Callable[..., np.ndarray | dict[str, np.ndarray]]


def compared(subject: Subject, title: str, kind: str, hits: Hits, more: Callable[[Subject], dict]) -> Iterator:
    """The parts of a protocol that classifies features; `more` measures its further scores of the representation."""
    if subject.labelled:
        yield title, lambda: merge(of_representation(subject, kind, hits), more(subject))
        for source in subject.sources[1:]:
            yield f"{title}, {source}", functools.partial(beside, subject, kind, hits, source)


def of_representation(subject: Subject, kind: str, hits: Hits) -> dict[str, Any]:
    """Scores of all features and read-outs; by family; with training's labels only, if training had fewer."""
    found, test = scores(subject, kind, hits, REPRESENTATION), subject.test(REPRESENTATION)
    labels = {"all": len(subject.gallery(REPRESENTATION).index)}
    for name in subject.names(REPRESENTATION):
        families = by_family(hits(subject, REPRESENTATION, name), test, subject.data)
        merge(found, {"families": {family: {kind: {name: score}} for family, score in families.items()}})
        if (few := subject.few_labels(REPRESENTATION)) is not None:
            labels["few_labels"] = len(few.index)
            score = accuracy(hits(subject, REPRESENTATION, name, few_labels=True), test)
            merge(found, {"few_labels": {kind: {name: score}}})
    return found | {"labels": labels}


def beside(subject: Subject, kind: str, hits: Hits, source: str, control: str = "") -> dict[str, Any]:
    """Scores of a network's features and read-outs, below its name; or of a baseline's, below "baseline"."""
    below = "baseline" if source in subject.config.baselines else source
    return {below: scores(subject, kind, hits, source, control)}


def scores(subject: Subject, kind: str, hits: Hits, source: str, control: str = "") -> dict[str, Any]:
    """Scores of a source's features and read-outs, on test videos changed by a control or ("") as they are."""
    test = subject.test(source, control)

    def score(name: str) -> PerVideo | dict[str, PerVideo]:
        return jax.tree.map(lambda hit: accuracy(hit, test), hits(subject, source, name, control))

    found = {kind: {name: score(name) for name in subject.names(source)}}
    grids = {name: {kind: score(name)} for name in subject.names(source, readouts=True)}
    return found | ({"readouts": grids} if grids else {})
