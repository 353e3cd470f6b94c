"""The pictures of a run: curves, flow, retrieval and confusion, in `figures/`."""

import dataclasses
import pathlib
from collections.abc import Iterable
from typing import Any

import numpy as np

from hcml_jax.evaluation.config import EvaluationConfig
from hcml_jax.evaluation.evaluate import Evaluation
from hcml_jax.evaluation.flow import make_flow_reader
from hcml_jax.evaluation.neighbours import nearest
from hcml_jax.evaluation.scores import confusion_matrix
from hcml_jax.methods.base import Method, Variables
from hcml_jax.visualization.confusion import confusion_figure
from hcml_jax.visualization.curves import curves_figure
from hcml_jax.visualization.flow import flow_figure
from hcml_jax.visualization.retrieval import retrieval_figure

RETRIEVED = 4


@dataclasses.dataclass(frozen=True)
class Report:
    """Draws what an evaluation found."""

    evaluation: Evaluation
    method: Method
    variables: Variables
    data: Any
    config: EvaluationConfig
    folder: pathlib.Path

    def write(self, records: list[dict]) -> None:
        """Writes every picture there is something to show for; `records` are those of `metrics.jsonl`."""
        if records:
            curves_figure(self.folder / "curves.png", records)
        self._flow()
        if self.evaluation.train:
            self._retrieval()
        if self.evaluation.recognised:
            self._confusion()

    def _flow(self) -> None:
        """Flow of each level: by its own head where it has one, by its linear read-out where there is truth.

        Where a level strides in time, its flow over several frames is shown as flow over one.
        """
        split = self.config.split if self.config.split in self.data.splits else "train"
        batch = self._batch(split, self.data.spread(split, self.config.figure_clips))
        clips, truth = batch["clip"], batch.get("flow")
        read_flow = make_flow_reader(self.method)
        heads, read = read_flow(self.variables, self.evaluation.readouts, clips)
        frames = self.method.frames_of_levels(clips.shape[1])
        first = {
            f"{level}, {kind}": np.asarray(flow)[:, :1] / np.diff(frames[level])[0]
            for kind, flows in (("its head", heads), ("read out", read))
            for level, flow in flows.items()
        }
        if not first:
            return
        truth = None if truth is None else truth[:, :1]
        flow_figure(self.folder / "flow.png", clips[:, :2], first, truth=truth, time=0)

    def _retrieval(self) -> None:
        train, test, count = self.evaluation.train, self.evaluation.test, self.config.figure_clips
        queries = np.linspace(0, len(test.labels) - 1, count).astype(int)
        found = {
            name: nearest(gallery, test.features[name][queries], RETRIEVED)
            for name, gallery in train.features.items()
        }
        asked = self._batch(self.config.split, test.index[queries])
        shown = {
            name: self._batch("train", train.index[rows.ravel()])["clip"]
            for name, rows in found.items()
        }
        retrieval_figure(
            self.folder / "retrieval.png",
            asked["clip"],
            {
                name: shown[name].reshape(*rows.shape, *shown[name].shape[1:])
                for name, rows in found.items()
            },
            query_labels=test.labels[queries],
            retrieved_labels={name: train.labels[rows] for name, rows in found.items()},
            classes=self.data.classes,
        )

    def _confusion(self) -> None:
        recognised, classes = self.evaluation.recognised, self.data.classes
        predicted = recognised.logits.argmax(1)
        matrix = confusion_matrix(predicted, recognised.labels, len(classes))
        confusion_figure(self.folder / "confusion.png", matrix, classes, self.data.families or None)

    def _batch(self, split: str, only: Iterable[int]) -> dict[str, np.ndarray]:
        """The clips of a split with these numbers, and their flow where there is truth."""
        only = [int(index) for index in only]
        with_flow = bool(self.evaluation.readouts)
        (batch,) = self.data.eval_batches(split, len(only), with_flow=with_flow, only=only)
        return batch
