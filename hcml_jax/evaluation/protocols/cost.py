"""What a network costs: parameters, multiply-adds, clips a second."""

import functools
import statistics
import time
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from hcml_jax.evaluation.config import parse_views
from hcml_jax.evaluation.subject import LAST, Subject
from hcml_jax.models.cost import multiply_adds, parameters
from hcml_jax.training.restore import learnt

ROUNDS = 5


def parts(subject: Subject) -> Iterator:
    """ "cost" of class scores or, without classes, of the embedding."""
    yield "cost", lambda: {"cost": _cost(subject)}


def _cost(subject: Subject) -> dict[str, Any]:
    method, data = subject.method, subject.data
    variables = dict(learnt(subject.variables(LAST), method.deployed))
    params = variables.pop("params")

    def output(params, others, clips):
        encoded = method.encode({**others, "params": params}, clips)
        return encoded.features["backbone"] if encoded.logits is None else encoded.logits

    side = subject.config.crop
    shape = (data.clip_shape[0], side, side, 3) if side else data.clip_shape
    given = params, variables, np.zeros((1, *shape), np.uint8)
    count = sum(multiply_adds(output, *given).values())
    views = {name: parse_views(name).count for name in subject.config.views}
    return {
        "parameters": parameters(output, *given),
        "gflops_a_clip": count / 1e9,
        "gflops": {name: clips * count / 1e9 for name, clips in views.items()},
        "clips_per_second": _speed(functools.partial(jax.jit(output), params, variables), subject, shape),
        "device": jax.devices()[0].device_kind,
    }


def _speed(output, subject: Subject, shape: tuple[int, ...]) -> float:
    """Clips a second through this process's devices, the median of some rounds after one that compiles."""
    size = subject.clips("1x1").videos
    clips = subject.networks.layout.shard_batch(np.zeros((size // jax.process_count(), *shape), np.uint8))
    jax.block_until_ready(output(clips))
    seconds = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        jax.block_until_ready(output(clips))
        seconds.append(time.perf_counter() - began)
    return len(clips) / statistics.median(seconds)
