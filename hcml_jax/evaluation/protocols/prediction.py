"""Prediction: how near frames that a method makes come to the true ones (CGM-Net Table 1)."""

from collections.abc import Iterator
from typing import Any

from hcml_jax.evaluation.prediction import prediction_errors
from hcml_jax.evaluation.subject import REPRESENTATION, Subject


def parts(subject: Subject) -> Iterator:
    """ "prediction" of the representation."""
    if subject.makes_frames:
        yield "prediction", lambda: {"prediction": _errors(subject)}


def _errors(subject: Subject) -> dict[str, Any]:
    batches = subject.clips("1x1").batches(subject.reported, future=1, told="prediction")
    return prediction_errors(subject.method, subject.variables(REPRESENTATION), batches)
