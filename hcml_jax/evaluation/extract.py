"""Features, predictions and baselines of all clips of a split."""

import operator
from collections.abc import Callable, Collection, Iterable
from typing import Any, NamedTuple

import jax
import numpy as np

from hcml_jax import augment, cluster
from hcml_jax.batch import Batch
from hcml_jax.methods.base import Method, Variables
from hcml_jax.ops import resize_area


class Extracted(NamedTuple):
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
        return jax.tree.map(lambda array: array[kept], self)


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
        features, logits = jax.device_get(extractor(variables, batch.clip[:, 0]))
        found = Extracted(features, batch.label, batch.index, logits)
        parts.append(jax.tree.map(operator.itemgetter(batch.valid & (batch.label >= 0)), found))
    own = jax.tree.map(lambda *arrays: np.concatenate(arrays), *parts)
    whole = cluster.gather(own)
    order = np.argsort(whole.index)
    return jax.tree.map(lambda array: array[order], whole)


@jax.jit
def frame_difference(variables: Any, clips: jax.Array):
    """The plain baseline: a coarse map of mean absolute frame differences, `[B, 64]`; needs no variables."""
    del variables
    clips = augment.to_float(clips)
    difference = abs(clips[:, 1:] - clips[:, :-1]).mean((1, 4))
    coarse = resize_area(difference[..., None], 8, 8).reshape(len(clips), 64)
    return {"frame_difference": coarse}, None
