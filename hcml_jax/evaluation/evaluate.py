"""The whole evaluation of a run: features, flow, recognition, beside the untrained network."""

import dataclasses
import functools
from typing import Any

import jax
import numpy as np

from hcml_jax import cluster
from hcml_jax.evaluation import scores
from hcml_jax.evaluation.config import EvaluationConfig
from hcml_jax.evaluation.extract import Extracted, extract, frame_difference, make_extractor
from hcml_jax.evaluation.flow import fit_readouts, flow_results
from hcml_jax.methods.base import Method, Variables

READOUT_CLIPS = 512


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What `evaluate` found.

    Attributes:
      results: what `results.json` holds.
      train, test: features of the self-supervised network, None without labels.
      recognised: features and class scores of the final network on the test split, None without a classifier.
      readouts: level -> weights of its linear read-out of flow, empty without ground truth.
    """

    results: dict[str, Any]
    train: Extracted | None = None
    test: Extracted | None = None
    recognised: Extracted | None = None
    readouts: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Evaluator:
    """Evaluates the variables of a method on the data of its run.

    Attributes:
      method, data, config: of the run.
      batch_size: clips at a time, over all devices of all processes.
      layout: of this process's own devices (`training.mesh.Layout`); variables lie on all of them.
    """

    method: Method
    data: Any
    config: EvaluationConfig
    batch_size: int
    layout: Any

    def evaluate(
        self, untrained: Variables, representation: Variables, last: Variables, recognises: bool
    ) -> Evaluation:
        """Evaluates a run.

        Args:
          untrained: the variables it started with.
          representation: after its self-supervised stages.
          last: as they are now.
          recognises: whether the classifier of `last` is trained.
        """
        results, readouts = {}, {}
        if all(
            s in self.data.splits and self.data.has_flow(s) for s in ("train", self.config.split)
        ):
            cluster.say("[evaluate] flow")
            results["flow"], readouts = self._flow(representation)
        if not self.data.classes:
            return Evaluation(results, readouts=readouts)
        cluster.say("[evaluate] neighbours and probes")
        train, test = self._extract(representation)
        results |= self._scores(train, test)
        cluster.say("[evaluate] neighbours and probes, untrained")
        results["untrained"] = self._scores(*self._extract(untrained))
        results["baseline"] = self._scores(*self._extract(untrained, frame_difference))
        recognised = None
        if recognises:
            cluster.say("[evaluate] recognition")
            recognised = self._extract_split(last, self.config.split)
            _add_recognition(results, recognised, self.data)
        return Evaluation(results, train, test, recognised, readouts)

    def _extract(self, variables: Variables, extractor=None) -> tuple[Extracted, Extracted]:
        splits = ("train", self.config.split)
        train, test = (self._extract_split(variables, split, extractor) for split in splits)
        return train, test

    def _extract_split(self, variables: Variables, split: str, extractor=None) -> Extracted:
        batches = self._batches(split)
        return extract(extractor or self._extractor, variables, batches)

    @functools.cached_property
    def _extractor(self):
        return make_extractor(self.method, bool(self.data.classes))

    def _scores(self, train: Extracted, test: Extracted) -> dict[str, Any]:
        data = self.data
        return scores.feature_scores(
            train, test, self.config.neighbours, data.classes, data.families
        )

    def _flow(self, variables: Variables) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """What `flow_results` finds on the test split, and the read-outs, fitted on the training split."""
        clips = self.data.spread("train", READOUT_CLIPS)
        fit = self._batches("train", with_flow=True, only=clips)
        readouts = fit_readouts(self.method, variables, fit)
        test = self._batches(self.config.split, with_flow=True)
        return flow_results(self.method, variables, readouts, test), readouts

    def _batches(self, split: str, **options):
        """This process's part of every batch of a split, its pixels on this process's devices."""
        shard = {"shard_index": jax.process_index(), "num_shards": jax.process_count()}
        for batch in self.data.eval_batches(split, self.batch_size, **shard, **options):
            pixels = {name: batch[name] for name in ("clip", "flow") if name in batch}
            yield batch | self.layout.shard_batch(pixels)


def _add_recognition(results: dict[str, Any], recognised: Extracted, data) -> None:
    """Top-1 of the final network: overall and by family."""
    predicted = recognised.logits.argmax(1)
    results["top1"] = scores.accuracy(predicted, recognised.labels)
    by_family = scores.family_accuracies(predicted, recognised.labels, data.classes, data.families)
    for family, top1 in by_family.items():
        results["families"][family]["top1"] = top1
