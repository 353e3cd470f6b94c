"""Features, predictions and baselines of all clips of a split."""

import dataclasses
import operator
from collections.abc import Callable, Collection, Iterable
from typing import Any

import jax
import numpy as np

from hcml_jax import augment, cluster
from hcml_jax.batch import Batch
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

    def only(self, index: Collection[int]) -> "Extracted":
        """The same of some rows of the table alone."""
        kept = np.isin(self.index, list(index))
        features = {name: array[kept] for name, array in self.features.items()}
        logits = None if self.logits is None else self.logits[kept]
        return Extracted(features, self.labels[kept], self.index[kept], logits)


def make_extractor(method: Method) -> Callable:
    """A jitted function (variables, clips) -> (features by name, class scores or None), of one forward pass."""

    @jax.jit
    def extractor(variables: Variables, clips: jax.Array):
        encoded = method.encode(variables, clips)
        return encoded.features, encoded.logits

    return extractor


def extract(extractor: Callable, variables: Variables, batches: Iterable[Batch]) -> Extracted:
    """Runs `extractor` over each process's batches of a split; unlabelled clips and padding are left out."""
    parts = []
    for batch in batches:
        keep = operator.itemgetter(batch.valid & (batch.label >= 0))
        found = jax.device_get(extractor(variables, batch.clip[:, 0]))
        parts.append(jax.tree.map(keep, (*found, batch.label, batch.index)))
    own = jax.tree.map(lambda *arrays: np.concatenate(arrays), *parts)
    features, logits, labels, index = cluster.gather(own)
    order = np.argsort(index)
    features, logits = jax.tree.map(lambda array: array[order], (features, logits))
    return Extracted(features, labels[order], index[order], logits)


@jax.jit
def frame_difference(variables: Any, clips: jax.Array):
    """The plain baseline: a coarse map of mean absolute frame differences, `[B, 64]`; needs no variables."""
    del variables
    clips = augment.to_float(clips)
    difference = abs(clips[:, 1:] - clips[:, :-1]).mean((1, 4))
    coarse = resize_area(difference[..., None], 8, 8).reshape(len(clips), 64)
    return {FRAME_DIFFERENCE: coarse}, None
