"""The whole evaluation of a run: recognition, flow, features, beside the network it started from."""

import dataclasses
import functools
import json
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from hcml_jax import cluster
from hcml_jax.batch import ONE_CLIP, Batch, Data, Reads
from hcml_jax.evaluation import scores
from hcml_jax.evaluation.config import EvaluationConfig
from hcml_jax.evaluation.extract import Extracted, extract, frame_difference, make_extractor
from hcml_jax.evaluation.flow import fit_readouts, flow_results
from hcml_jax.evaluation.networks import Networks
from hcml_jax.files import replace_text
from hcml_jax.methods.base import Method, Variables
from hcml_jax.progress import Progress
from hcml_jax.training.mesh import Layout, make_mesh
from hcml_jax.training.workdir import Workdir

READOUT_CLIPS = 512
BASELINE = "baseline"  # frame differences, which need no network


@dataclasses.dataclass
class Evaluation:
    """What `evaluate` has found so far.

    Attributes:
      representation: the variables whose features are evaluated.
      results: what `results.json` holds.
      train, test: features of `representation`, None without labels.
      recognised: features and class scores of the final network on the test split, None without a classifier.
      readouts: level -> weights of its linear read-out of flow, empty without ground truth.
    """

    representation: Variables
    results: dict[str, Any] = dataclasses.field(default_factory=dict)
    train: Extracted | None = None
    test: Extracted | None = None
    recognised: Extracted | None = None
    readouts: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)


def evaluate(
    method: Method, data: Data, config: EvaluationConfig, batch_size: int, workdir: Workdir, seed: int
) -> Evaluation:
    """Evaluates a run; `results.json` is written anew with each part, the cheap and important parts first.

    Until all are there, its "unfinished" names those to come.

    Args:
      method, data, config, workdir, seed: of the run.
      batch_size: clips at a time, over all devices of all processes; rounded up until it divides over them.
    """
    local = Layout(make_mesh(jax.local_devices()))
    networks = Networks(method, data, workdir, seed, local)
    reader = _Reader(method, data, config, batch_size + -batch_size % jax.device_count(), local)
    evaluation = Evaluation(networks.load("representation"))
    parts = list(_parts(evaluation, networks, reader))
    _write(evaluation, networks, [name for name, _ in parts])
    for done, (name, part) in enumerate(parts, 1):
        cluster.say(f"[evaluate] {name}")
        part()
        _write(evaluation, networks, [name for name, _ in parts[done:]])
    return evaluation


def _write(evaluation: Evaluation, networks: Networks, unfinished: list[str]) -> None:
    steps = {name: position.step for name, position in networks.positions.items()}
    found = evaluation.results | {"checkpoint": steps}
    if unfinished:
        found["unfinished"] = unfinished
    if cluster.is_first():
        replace_text(networks.workdir.results, json.dumps(found, indent=1) + "\n")


def _parts(evaluation: Evaluation, networks: Networks, reader: "_Reader") -> Iterator[tuple[str, Callable[[], None]]]:
    """What there is to evaluate, in order: names, and functions that add to the evaluation."""
    if networks.recognises:
        yield "recognition", lambda: _recognition(evaluation, networks.load("last"), reader)
    if reader.has_flow:
        yield "flow", lambda: _flow(evaluation, reader)
    if reader.data.classes:
        features = functools.cache(lambda name: _features(name, evaluation, networks, reader))
        for kind in ("neighbours", "probes"):
            yield kind, lambda kind=kind: _score(evaluation, "", kind, features, reader)
            for name in (*networks.beside, BASELINE):
                score = functools.partial(_score, evaluation, name, kind, features, reader)
                yield f"{kind}, {name}", score


def _features(name: str, evaluation: Evaluation, networks: Networks, reader: "_Reader"):
    """Features of the training split and of the one that is reported, by the network of this name."""
    extractor = frame_difference if name == BASELINE else reader.extractor
    variables = networks.load(name) if name in networks.beside else evaluation.representation
    splits = ("train", reader.config.split)
    train, test = (reader.extract(extractor, variables, split) for split in splits)
    if not name:
        evaluation.train, evaluation.test = train, test
    return train, test


def _recognition(evaluation: Evaluation, last: Variables, reader: "_Reader") -> None:
    """Top-1 of the final network: overall and by family."""
    evaluation.recognised = recognised = reader.extract(reader.extractor, last, reader.config.split)
    predicted, labels, data = recognised.logits.argmax(1), recognised.labels, reader.data
    evaluation.results["top1"] = scores.accuracy(predicted, labels)
    by_family = scores.family_accuracies(predicted, labels, data.classes, data.families)
    families = evaluation.results.setdefault("families", {})
    for family, top1 in by_family.items():
        families.setdefault(family, {})["top1"] = top1


def _flow(evaluation: Evaluation, reader: "_Reader") -> None:
    """What `flow_results` finds on the test split, by read-outs that are fitted on the training split."""
    method, variables = reader.method, evaluation.representation
    fit = reader.batches("train", Reads(flow=True), reader.data.spread("train", READOUT_CLIPS))
    evaluation.readouts = fit_readouts(method, variables, fit)
    test = reader.batches(reader.config.split, Reads(flow=True))
    evaluation.results["flow"] = flow_results(method, variables, evaluation.readouts, test)


def _score(evaluation: Evaluation, name: str, kind: str, features: Callable, reader: "_Reader") -> None:
    """Neighbours or probes by all labels of the training split and, where training had fewer, by those alone."""
    data, (train, test) = reader.data, features(name)
    results = evaluation.results.setdefault(name, {}) if name else evaluation.results
    galleries, few_labels = {"": train}, train.only(data.labelled)
    if len(few_labels.labels) < len(train.labels):
        galleries["few_labels"] = few_labels
    neighbours = functools.partial(scores.neighbour_scores, neighbours=reader.config.neighbours)
    score = {"neighbours": neighbours, "probes": scores.probe_scores}[kind]
    for few, gallery in galleries.items():
        found = score(gallery, test, data.classes, data.families)
        scores.merge(results, {few: found} if few else found)
        counts = evaluation.results.setdefault("labels", {})
        counts[few or "all"] = len(gallery.labels)


@dataclasses.dataclass(frozen=True)
class _Reader:
    """Clips of a run, and what networks make of them.

    Attributes:
      method, data, config: of the run.
      batch_size: clips at a time, over all devices of all processes.
      layout: of this process's own devices; variables lie on all of them.
    """

    method: Method
    data: Data
    config: EvaluationConfig
    batch_size: int
    layout: Layout

    @property
    def has_flow(self) -> bool:
        """Whether the flow of the clips is known."""
        splits = ("train", self.config.split)
        return all(s in self.data.splits and self.data.has_flow(s) for s in splits)

    @functools.cached_property
    def extractor(self) -> Callable:
        """See `make_extractor`."""
        return make_extractor(self.method)

    def extract(self, extractor: Callable, variables: Variables, split: str) -> Extracted:
        """What an extractor finds in a split."""
        return extract(extractor, variables, self.batches(split))

    def batches(self, split: str, reads: Reads = ONE_CLIP, only=None) -> Iterator[Batch]:
        """This process's part of every batch of a split, its pixels on this process's devices."""
        given = self.data.eval_batches(split, self.batch_size, reads=reads, only=only, **cluster.shard())
        clips = self.data.num_clips(split) if only is None else len(only)
        with Progress(f"[evaluate] {split}", -(-clips // self.batch_size), "batches") as progress:
            for batch in given:
                pixels = self.layout.shard_batch({"clip": batch.clip, "flow": batch.flow})
                yield batch._replace(**pixels)
                progress.add()
