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


def parts(subject: Subject) -> Iterator:
    """One for each control, below "controls"."""
    for control in CONTROLS if subject.labelled else ():
        yield f"controls, {control}", functools.partial(_control, subject, control)


def _control(subject: Subject, control: str) -> dict[str, Any]:
    """Of those that are among the protocols: "top1" and others, "knn", "linear", of the baselines too.

    Galleries and probes stay.
    """
    found, asked = {}, subject.config.protocols
    if "recognition" in asked and subject.networks.recognises:
        merge(found, recognise(subject, subject.config.views[0], control))
    for kind, protocol in (("knn", neighbours), ("linear", linear)):
        if protocol.__name__.rsplit(".", 1)[-1] in asked:
            merge(found, scores(subject, kind, protocol.hits, REPRESENTATION, control))
            for baseline in subject.config.baselines:
                merge(found, beside(subject, kind, protocol.hits, baseline, control))
    return {"controls": {control: found}} if found else {}
