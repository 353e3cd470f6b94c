"""Flow: end-point errors where it is known, and how well it explains the frames (HCML Figure 4, CGM-Net Table 1)."""

from collections.abc import Iterator
from typing import Any

from hcml_jax.evaluation.flow import flow_errors, frame_errors
from hcml_jax.evaluation.subject import Subject


def parts(subject: Subject) -> Iterator:
    """ "flow" of the representation, below that name."""
    if subject.has_flow:
        yield "flow", lambda: {"flow": _errors(subject)}
    if subject.flow_names:
        yield "warped frames", lambda: {"flow": _frames(subject)}


def _errors(subject: Subject) -> dict[str, Any]:
    batches = subject.clips("1x1").batches(subject.reported, flow=True, told="flow")
    return flow_errors(subject.method, subject.flow_reader, batches)


def _frames(subject: Subject) -> dict[str, Any]:
    batches = subject.clips("1x1").batches(subject.reported, told="warped frames")
    classical = "optical_flow" in subject.config.baselines
    return frame_errors(subject.method, subject.flow_reader, batches, classical)
