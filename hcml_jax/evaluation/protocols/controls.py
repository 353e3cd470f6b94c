"""Temporal controls: the tests on reversed, shuffled and single-frame clips, to see how much of a score is motion."""

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
    """Scores of the configured protocols: "top1" and others, "knn", "linear", also of the baselines.

    Galleries and probes are those of unchanged clips.
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
