"""The whole evaluation of a run: features, flow, recognition, beside the untrained network."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from hcml_jax.evaluation import scores
from hcml_jax.evaluation.config import EvaluationConfig
from hcml_jax.evaluation.extract import Extracted, extract, frame_difference, make_extractor
from hcml_jax.evaluation.flow import LinearReadout, flow_over
from hcml_jax.methods.base import Method, Variables
from hcml_jax.ops import end_point_error, resize_flow

READOUT_CLIPS = 512


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What `evaluate` found.

    Attributes:
      results: what `results.json` holds.
      train, test: features of the self-supervised network, None without labels.
      recognised: features and class scores of the final network on the test split, None without a classifier.
      readouts: level -> linear read-out of flow, empty without ground truth.
    """

    results: dict[str, Any]
    train: Extracted | None = None
    test: Extracted | None = None
    recognised: Extracted | None = None
    readouts: dict[str, LinearReadout] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Evaluator:
    """Evaluates the variables of a method on the data of its run."""

    method: Method
    data: Any
    config: EvaluationConfig
    batch_size: int

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
            results["flow"], readouts = self._flow(representation)
        if not self.data.classes:
            return Evaluation(results, readouts=readouts)
        train, test = self._extract(representation)
        results |= self._scores(train, test)
        results["untrained"] = self._scores(*self._extract(untrained))
        results["baseline"] = self._scores(*self._extract(untrained, frame_difference))
        recognised = None
        if recognises:
            recognised = self._extract_split(last, self.config.split)
            _add_recognition(results, recognised, self.data)
        return Evaluation(results, train, test, recognised, readouts)

    def _extract(self, variables: Variables, extractor=None) -> tuple[Extracted, Extracted]:
        splits = ("train", self.config.split)
        train, test = (self._extract_split(variables, split, extractor) for split in splits)
        return train, test

    def _extract_split(self, variables: Variables, split: str, extractor=None) -> Extracted:
        batches = self.data.eval_batches(split, self.batch_size)
        return extract(extractor or self._extractor, variables, batches)

    @functools.cached_property
    def _extractor(self):
        return make_extractor(self.method, bool(self.data.classes))

    def _scores(self, train: Extracted, test: Extracted) -> dict[str, Any]:
        data = self.data
        return scores.feature_scores(
            train, test, self.config.neighbours, data.classes, data.families
        )

    def _flow(self, variables: Variables) -> tuple[dict[str, Any], dict[str, LinearReadout]]:
        """End-point errors on the test split: of zero flow, of each level's head, of linear read-outs."""
        motion = jax.jit(self.method.motion)
        readouts = self._fit_readouts(motion, variables)
        heads = jax.jit(self.method.flow) if hasattr(self.method, "flow") else lambda *_: {}
        errors: dict[str, dict[str, list]] = {"epe_by_level": {}, "readout_epe": {}, "zero": {}}
        for batch in self.data.eval_batches(self.config.split, self.batch_size, with_flow=True):
            read = read_flow(readouts, motion(variables, batch["clip"]), batch["flow"].shape)
            truth = {l: flow_over(batch["flow"], s) for l, s in self.method.frame_strides.items()}
            truth["frame"] = batch["flow"]
            zero = {level: np.zeros_like(flow) for level, flow in truth.items()}
            kinds = zip(errors, (heads(variables, batch["clip"]), read, zero), strict=True)
            for kind, flows in kinds:
                for level, flow in flows.items():
                    error = np.asarray(end_point_error(flow, truth[level])).mean(1)
                    errors[kind].setdefault(level, []).append(error[batch["valid"]])
        return _flow_results(errors), readouts

    def _fit_readouts(self, motion, variables: Variables) -> dict[str, LinearReadout]:
        readouts: dict[str, LinearReadout] = {}
        only = self.data.spread("train", READOUT_CLIPS)
        batches = self.data.eval_batches("train", self.batch_size, with_flow=True, only=only)
        for batch in batches:
            truth, valid = batch["flow"][batch["valid"]], batch["valid"]
            for level, maps in motion(variables, batch["clip"]).items():
                seen = maps[valid, :-1]  # the last frame is paired with itself: it sees no motion
                flow = flow_over(truth, self.method.frame_strides[level])
                flow = resize_flow(flow, *seen.shape[2:4])
                readouts.setdefault(level, LinearReadout()).add(np.asarray(seen), np.asarray(flow))
        return readouts


def read_flow(
    readouts: Mapping[str, LinearReadout], motion: Mapping[str, jax.Array], shape: tuple[int, ...]
) -> dict[str, jax.Array]:
    """Flow that linear read-outs find, by level, in pixels of clips whose flow has `shape`."""
    return {
        level: resize_flow(
            readout(np.asarray(motion[level][:, :-1])).astype(np.float32), *shape[2:4]
        )
        for level, readout in readouts.items()
    }


def _flow_results(errors: Mapping[str, Mapping[str, list]]) -> dict[str, Any]:
    """Means over clips. A level's flow leads over as many frames as the level strides; so does its zero flow."""
    means = {
        kind: {level: float(np.concatenate(clips).mean()) for level, clips in levels.items()}
        for kind, levels in errors.items()
    }
    zero, heads = means.pop("zero"), means["epe_by_level"]
    results = {"epe_zero": zero.pop("frame"), "epe_zero_by_level": zero}
    return results | ({"epe": heads[min(heads)]} if heads else {}) | means


def _add_recognition(results: dict[str, Any], recognised: Extracted, data) -> None:
    """Top-1 of the final network: overall and by family."""
    predicted = recognised.logits.argmax(1)
    results["top1"] = scores.accuracy(predicted, recognised.labels)
    by_family = scores.family_accuracies(predicted, recognised.labels, data.classes, data.families)
    for family, top1 in by_family.items():
        results["families"][family]["top1"] = top1
