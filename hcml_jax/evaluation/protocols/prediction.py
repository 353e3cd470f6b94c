"""Prediction: how near frames that a method makes come to the true ones (CGM-Net Table 1)."""

import functools
from collections.abc import Iterator
from typing import Any

import jax

from hcml_jax.evaluation.baselines import dis_flow_of_clips
from hcml_jax.evaluation.prediction import FrameMaker, by_flow, copies, prediction_errors
from hcml_jax.evaluation.subject import REPRESENTATION, Subject


def parts(subject: Subject) -> Iterator:
    """ "prediction" of the representation."""
    if subject.makes_frames:
        yield "prediction", lambda: {"prediction": _errors(subject)}


def _errors(subject: Subject) -> dict[str, Any]:
    batches = subject.clips("1x1").batches(subject.reported, future=1, told="prediction")
    return prediction_errors(_makers(subject), batches)


def _makers(subject: Subject) -> dict[str, FrameMaker]:
    """The method, its own flow where it gives that of every frame, OpenCV's where that is a baseline, and copies."""
    method, variables = subject.method, subject.variables(REPRESENTATION)
    makers = {"learnt": functools.partial(jax.jit(method.next_frames), variables)}
    heads = jax.jit(lambda variables, clips: method.encode(variables, clips).flow)
    frames, *_ = subject.data.clip_shape
    for name in subject.flow_names:
        if len(method.frames_of(frames)[name]) == frames:
            makers[f"{name}, flow"] = by_flow(lambda clips, name=name: heads(variables, clips)[name])
    if "optical_flow" in subject.config.baselines:
        makers["classical"] = by_flow(lambda clips: dis_flow_of_clips(jax.device_get(clips)))
    return makers | {"copying": copies}
