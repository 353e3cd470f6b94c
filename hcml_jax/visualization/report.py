"""The pictures of a run: curves, flow, retrieval and confusion, in `figures/`."""

import dataclasses
import pathlib
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from sklearn.metrics import confusion_matrix

from hcml_jax.batch import Batch, Data, Reads
from hcml_jax.evaluation.config import EvaluationConfig
from hcml_jax.evaluation.evaluate import Evaluation
from hcml_jax.evaluation.flow import make_flow_reader
from hcml_jax.evaluation.neighbours import nearest
from hcml_jax.methods.base import Method
from hcml_jax.visualization.confusion import draw_confusion
from hcml_jax.visualization.curves import draw_curves
from hcml_jax.visualization.figure import save_figure
from hcml_jax.visualization.flow import draw_flow
from hcml_jax.visualization.retrieval import draw_retrieval

RETRIEVED = 4


def write_report(
    evaluation: Evaluation,
    method: Method,
    data: Data,
    config: EvaluationConfig,
    records: Sequence[Mapping],
    folder: pathlib.Path,
) -> None:
    """Writes every picture there is something to show for to `folder`; `records` are those of `metrics.jsonl`."""
    report = _Report(evaluation, method, data, config, folder)
    if records:
        terms = {name for stage in method.stages for name in stage.terms}
        save_figure(draw_curves(records, terms), folder / "curves.png")
    report.draw_flow()
    if evaluation.train:
        report.draw_retrieval()
    if evaluation.recognised:
        report.draw_confusion()


@dataclasses.dataclass(frozen=True)
class _Report:
    evaluation: Evaluation
    method: Method
    data: Data
    config: EvaluationConfig
    folder: pathlib.Path

    def draw_flow(self) -> None:
        """Flow of each level: by its own head where it has one, by its linear read-out where there is truth.

        Where a level strides in time, its flow over several frames is shown as flow over one.
        """
        split = self.config.split if self.config.split in self.data.splits else "train"
        batch = self._batch(split, self.data.spread(split, self.config.figure_clips))
        clips = batch.clip[:, 0]
        read_flow = make_flow_reader(self.method)
        heads, read = read_flow(self.evaluation.representation, self.evaluation.readouts, clips)
        frames = self.method.frames_of(clips.shape[1])
        first = {
            f"{level}, {kind}": np.asarray(flow)[:, :1] / np.diff(frames[level])[0]
            for kind, flows in (("its head", heads), ("read out", read))
            for level, flow in flows.items()
        }
        if not first:
            return
        truth = None if batch.flow is None else batch.flow[:, 0, :1]
        figure = draw_flow(clips[:, :2], first, truth=truth, time=0)
        save_figure(figure, self.folder / "flow.png")

    def draw_retrieval(self) -> None:
        train, test = self.evaluation.train, self.evaluation.test
        queries = np.linspace(0, len(test.labels) - 1, self.config.figure_clips).astype(int)
        found = {
            name: nearest(gallery, test.features[name][queries], RETRIEVED) for name, gallery in train.features.items()
        }
        asked = self._batch(self.config.split, test.index[queries])
        shown = {name: self._batch("train", train.index[rows.ravel()]).clip for name, rows in found.items()}
        figure = draw_retrieval(
            asked.clip[:, 0],
            {name: clips.reshape(*found[name].shape, *clips.shape[2:]) for name, clips in shown.items()},
            query_labels=test.labels[queries],
            retrieved_labels={name: train.labels[rows] for name, rows in found.items()},
            classes=self.data.classes,
        )
        save_figure(figure, self.folder / "retrieval.png")

    def draw_confusion(self) -> None:
        recognised, classes = self.evaluation.recognised, self.data.classes
        matrix = confusion_matrix(recognised.labels, recognised.logits.argmax(1), labels=range(len(classes)))
        figure = draw_confusion(matrix, classes, self.data.families or None)
        save_figure(figure, self.folder / "confusion.png")

    def _batch(self, split: str, only: Iterable[int]) -> Batch:
        """The clips of a split with these numbers, and their flow where there is truth."""
        only = [int(index) for index in only]
        reads = Reads(flow=bool(self.evaluation.readouts))
        (batch,) = self.data.eval_batches(split, len(only), reads=reads, only=only)
        return batch
