"""The whole evaluation of a run: features, flow, recognition, beside the untrained network."""

import dataclasses
import functools
import itertools
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from hcml_jax.evaluation import scores
from hcml_jax.evaluation.config import EvaluationConfig
from hcml_jax.evaluation.extract import Extracted, extract, frame_difference, make_extractor
from hcml_jax.evaluation.flow import LinearReadout, endpoint_errors
from hcml_jax.methods.base import Method, Variables
from hcml_jax.ops import resize_flow

READOUT_BATCHES = 8


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
            recognised = self._extract(last)[1]
            _add_recognition(results, recognised, self.data)
        return Evaluation(results, train, test, recognised, readouts)

    def _extract(self, variables: Variables, extractor=None) -> tuple[Extracted, Extracted]:
        extractor = extractor or self._extractor
        splits = ("train", self.config.split)
        train, test = (
            extract(extractor, variables, self.data.eval_batches(split, self.batch_size))
            for split in splits
        )
        return train, test

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
        errors: dict[str, list] = {}
        for batch in self.data.eval_batches(self.config.split, self.batch_size, with_flow=True):
            estimates = {"zero": np.zeros_like(batch["flow"])} | heads(variables, batch["clip"])
            estimates |= read_flow(readouts, motion(variables, batch["clip"]), batch["flow"].shape)
            for name, flow in estimates.items():
                error = endpoint_errors(np.asarray(flow), strided(batch["flow"], flow.shape[1]))
                errors.setdefault(name, []).append(error[batch["valid"]])
        means = {name: float(np.concatenate(values).mean()) for name, values in errors.items()}
        return _flow_results(means), readouts

    def _fit_readouts(self, motion, variables: Variables) -> dict[str, LinearReadout]:
        readouts: dict[str, LinearReadout] = {}
        batches = self.data.eval_batches("train", self.batch_size, with_flow=True)
        for batch in itertools.islice(batches, READOUT_BATCHES):
            for level, maps in motion(variables, batch["clip"]).items():
                seen = maps[:, :-1]  # the last frame is paired with itself: it sees no motion
                flow = resize_flow(strided(batch["flow"], seen.shape[1]), *seen.shape[2:4])
                readouts.setdefault(level, LinearReadout()).add(np.asarray(seen), np.asarray(flow))
        return readouts


def read_flow(
    readouts: Mapping[str, LinearReadout], motion: Mapping[str, jax.Array], shape: tuple[int, ...]
) -> dict[str, jax.Array]:
    """Flow that linear read-outs find, in pixels of clips whose flow has `shape`: "readout/level0" and so on."""
    return {
        f"readout/{level}": resize_flow(
            readout(np.asarray(motion[level][:, :-1])).astype(np.float32), *shape[2:4]
        )
        for level, readout in readouts.items()
    }


def strided(flow: np.ndarray, pairs: int) -> np.ndarray:
    """Of the flow `[B, T - 1, H, W, 2]` of clips, the `pairs` first frames that a strided level keeps."""
    stride = (flow.shape[1] + 1) // (pairs + 1)
    return flow[:, ::stride][:, :pairs]


def _flow_results(means: Mapping[str, float]) -> dict[str, Any]:
    results = {"epe_zero": means["zero"]}
    heads = {name: value for name, value in means.items() if name.startswith("level")}
    if heads:
        results |= {"epe": heads[min(heads)], "epe_by_level": heads}
    readouts = {name.removeprefix("readout/"): v for name, v in means.items() if "/" in name}
    return results | {"readout_epe": readouts}


def _add_recognition(results: dict[str, Any], recognised: Extracted, data) -> None:
    """Top-1 of the final network: overall and by family."""
    predicted = recognised.logits.argmax(1)
    results["top1"] = scores.accuracy(predicted, recognised.labels)
    by_family = scores.family_accuracies(predicted, recognised.labels, data.classes, data.families)
    for family, top1 in by_family.items():
        results["families"][family]["top1"] = top1
