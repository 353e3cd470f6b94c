"""The pictures of a run: curves, flow, retrieval and confusion, in `figures/`."""

import dataclasses
import pathlib
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from hcml_jax.evaluation.config import EvaluationConfig
from hcml_jax.evaluation.evaluate import Evaluation, read_flow
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
        """Flow of each level: by its own head where it has one, by its linear read-out where there is truth."""
        split = self.config.split if self.config.split in self.data.splits else "train"
        with_flow = bool(self.evaluation.readouts)
        batch = self._spread(split, with_flow)
        clips, truth = batch["clip"], batch.get("flow")
        flows = self.method.flow(self.variables, clips) if hasattr(self.method, "flow") else {}
        flows = {f"{name}, its head": flow for name, flow in flows.items()}
        if with_flow:
            maps = self.method.motion(self.variables, clips)
            read = read_flow(self.evaluation.readouts, maps, truth.shape)
            flows |= {f"{n.removeprefix('readout/')}, read out": flow for n, flow in read.items()}
        if not flows:
            return
        first = {name: np.asarray(flow)[:, :1] for name, flow in flows.items()}
        truth = None if truth is None else truth[:, :1]
        flow_figure(self.folder / "flow.png", clips[:, :2], first, truth=truth, time=0)

    def _retrieval(self) -> None:
        train, test, count = self.evaluation.train, self.evaluation.test, self.config.figure_clips
        queries = np.linspace(0, len(test.labels) - 1, count).astype(int)
        found = {
            name: nearest(gallery, test.features[name][queries], RETRIEVED)
            for name, gallery in train.features.items()
        }
        shown = self._clips("train", {int(i) for rows in found.values() for i in rows.ravel()})
        asked = self._clips(self.config.split, set(map(int, queries)))
        retrieval_figure(
            self.folder / "retrieval.png",
            np.stack([asked[int(i)] for i in queries]),
            {
                name: np.stack([[shown[int(i)] for i in row] for row in rows])
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

    def _spread(self, split: str, with_flow: bool) -> dict[str, np.ndarray]:
        """A batch of `figure_clips` clips, spread evenly over a split."""
        total = self.data.num_clips(split)
        wanted = set(np.linspace(0, total - 1, min(self.config.figure_clips, total)).astype(int))
        picked = [row for i, row in enumerate(self._rows(split, with_flow)) if i in wanted]
        return {name: np.stack([row[name] for row in picked]) for name in picked[0]}

    def _clips(self, split: str, wanted: set[int]) -> dict[int, np.ndarray]:
        """The clips at some places among a split's labelled clips."""
        labelled = (row for row in self._rows(split, False) if row["label"] >= 0)
        return {i: row["clip"] for i, row in enumerate(labelled) if i in wanted}

    def _rows(self, split: str, with_flow: bool) -> Iterator[dict[str, np.ndarray]]:
        for batch in self.data.eval_batches(split, 16, with_flow=with_flow):
            for i in np.flatnonzero(batch["valid"]):
                yield {name: array[i] for name, array in jax.device_get(batch).items()}
