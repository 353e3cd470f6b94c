"""How much of a score is motion: the same tests on clips that are reversed, shuffled, or one frame alone."""

import functools
from collections.abc import Iterator
from typing import Any

from hcml_jax.evaluation.controls import CONTROLS
from hcml_jax.evaluation.protocols import linear, neighbours
from hcml_jax.evaluation.protocols.features import beside, scores
from hcml_jax.evaluation.protocols.hits import merge
from hcml_jax.evaluation.protocols.recognition import recognise
from hcml_jax.evaluation.subject import REPRESENTATION, Subject

FEATURES = {"neighbours": ("knn", neighbours.hits), "linear": ("linear", linear.hits)}


def parts(subject: Subject) -> Iterator:
    """One for each control, below "controls"."""
    asked, recognises = {*subject.config.protocols}, subject.networks.recognises
    if subject.labelled and (asked & set(FEATURES) or (recognises and "recognition" in asked)):
        for control in CONTROLS:
            yield f"controls, {control}", functools.partial(_control, subject, control)


def _control(subject: Subject, control: str) -> dict[str, Any]:
    """Of those that are among the protocols: "top1" and others, "knn", "linear", of the baselines too.

    Galleries and probes stay.
    """
    found, asked = {}, subject.config.protocols
    if "recognition" in asked and subject.networks.recognises:
        merge(found, recognise(subject, subject.config.views[0], control))
    for protocol, (kind, hits) in FEATURES.items():
        if protocol in asked:
            merge(found, scores(subject, kind, hits, REPRESENTATION, control))
            for baseline in subject.config.baselines:
                merge(found, beside(subject, kind, hits, baseline, control))
    return {"controls": {control: found}}
