"""Features, predictions and baselines of all clips of a split."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import numpy as np

from hcml_jax import augment, cluster
from hcml_jax.methods.base import Method, Variables
from hcml_jax.ops import resize_area

FRAME_DIFFERENCE = "frame_difference"


@dataclasses.dataclass(frozen=True)
class Extracted:
    """Arrays over the labelled clips of a split, in the table's order.

    Attributes:
      features: name -> `[N, C]`.
      labels: int `[N]`.
      index: int `[N]`, rows of the table.
      logits: `[N, classes]`, or None where the method has no classifier.
    """

    features: dict[str, np.ndarray]
    labels: np.ndarray
    index: np.ndarray
    logits: np.ndarray | None


def make_extractor(method: Method, with_logits: bool) -> Callable:
    """A jitted function (variables, clips) -> {name: `[B, C]`}; the class scores are called "logits"."""

    @jax.jit
    def extractor(variables: Variables, clips: jax.Array) -> dict[str, jax.Array]:
        outputs = method.features(variables, clips)
        return outputs | ({"logits": method.logits(variables, clips)} if with_logits else {})

    return extractor


def extract(
    extractor: Callable, variables: Variables, batches: Iterable[Mapping[str, Any]]
) -> Extracted:
    """Runs `extractor` over each process's batches of a split; unlabelled clips and padding are left out."""
    outputs, labels, index = [], [], []
    for batch in batches:
        keep = batch["valid"] & (batch["label"] >= 0)
        results = jax.device_get(extractor(variables, batch["clip"]))
        outputs.append({name: array[keep] for name, array in results.items()})
        labels.append(batch["label"][keep])
        index.append(batch["index"][keep])
    features = {name: np.concatenate([o[name] for o in outputs]) for name in outputs[0]}
    own = features, np.concatenate(labels), np.concatenate(index)
    features, labels, index = cluster.gather(own)
    order = np.argsort(index)
    features = {name: array[order] for name, array in features.items()}
    logits = features.pop("logits", None)
    return Extracted(features, labels[order], index[order], logits)


@jax.jit
def frame_difference(variables: Any, clips: jax.Array) -> dict[str, jax.Array]:
    """The plain baseline: a coarse map of mean absolute frame differences, `[B, 64]`; needs no variables."""
    del variables
    clips = augment.to_float(clips)
    difference = abs(clips[:, 1:] - clips[:, :-1]).mean((1, 4))
    return {FRAME_DIFFERENCE: resize_area(difference[..., None], 8, 8).reshape(len(clips), 64)}
