"""Prediction: errors of frames that a network, or its flow, predicts (CGM-Net Table 1)."""

import functools
from collections.abc import Iterator
from typing import Any

import jax

from hcml_jax.evaluation.baselines import dis_flow_of_clips
from hcml_jax.evaluation.prediction import FrameMaker, by_flow, copies, prediction_errors
from hcml_jax.evaluation.subject import REPRESENTATION, Subject


def parts(subject: Subject) -> Iterator:
    """ "prediction" of the representation."""
    if makers := _makers(subject):
        yield "prediction", lambda: {"prediction": _errors(subject, makers)}


def _errors(subject: Subject, makers: dict[str, FrameMaker]) -> dict[str, Any]:
    if "optical_flow" in subject.config.baselines:
        makers = makers | {"classical": by_flow(lambda clips: dis_flow_of_clips(jax.device_get(clips)))}
    future = 1 if subject.reads_future else 0
    batches = subject.clips("1x1").batches(subject.reported, future=future, told="prediction")
    return prediction_errors(makers | {"copying": copies}, batches)


def _makers(subject: Subject) -> dict[str, FrameMaker]:
    """The network's frame makers: itself, if it predicts frames, and its flow, if it outputs that of every frame."""
    method, variables = subject.method, subject.variables(REPRESENTATION)
    makers, (frames, *_) = {}, subject.data.clip_shape
    if subject.makes_frames:
        makers["learnt"] = functools.partial(jax.jit(method.next_frames), variables)
    heads = jax.jit(lambda variables, clips: method.encode(variables, clips).flow)
    for name in subject.flow_names:
        if len(method.frames_of(frames).get(name, ())) == frames:
            makers[f"{name}, flow"] = by_flow(lambda clips, name=name: heads(variables, clips)[name])
    return makers
