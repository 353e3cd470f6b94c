"""The pictures of a run: curves, flow, retrieval and confusion, in `figures/`."""

import functools
import pathlib
from collections.abc import Iterable, Mapping, Sequence

import jax
import numpy as np
from sklearn.metrics import confusion_matrix

from hcml_jax import cluster
from hcml_jax.batch import ONE_CLIP, Batch, Reads
from hcml_jax.evaluation.activation import activation, grad_cam
from hcml_jax.evaluation.protocols.recognition import average_views, select
from hcml_jax.evaluation.subject import LAST, REPRESENTATION, Subject
from hcml_jax.ops import flow_to_image, rotate_flow
from hcml_jax.visualization.activation import lay_over
from hcml_jax.visualization.confusion import draw_confusion
from hcml_jax.visualization.curves import draw_curves
from hcml_jax.visualization.embedding import draw_embedding
from hcml_jax.visualization.figure import save_figure
from hcml_jax.visualization.flow import draw_flow
from hcml_jax.visualization.moving import save_moving
from hcml_jax.visualization.page import PICTURES
from hcml_jax.visualization.prediction import moving_prediction, predicted_rows
from hcml_jax.visualization.retrieval import draw_retrieval, moving_retrieval
from hcml_jax.visualization.similarity import draw_similarities
from hcml_jax.visualization.strips import draw_strips

RETRIEVED = 4
LEAST_CLIPS = 5  # that can be laid out in the plane


def write_report(subject: Subject, records: Sequence[Mapping], folder: pathlib.Path) -> None:
    """Write to `folder` every picture for which there are data.

    Features and class scores are those that the evaluation's protocols have extracted; `records` are those of
    `metrics.jsonl`.
    """
    done = subject.config.protocols
    for name in PICTURES:  # of an evaluation before
        (folder / name).unlink(missing_ok=True)
    if not subject.config.figure_clips:
        return
    cluster.say("[evaluate] pictures")
    if records:
        terms = {name for stage in subject.method.stages for name in stage.terms}
        save_figure(draw_curves(records, terms), folder / "curves.png")
    if "flow" in done:
        _draw_flow(subject, folder / "flow.png")
    if "prediction" in done and subject.makes_frames:
        _draw_prediction(subject, folder)
    if subject.labelled and not {"neighbours", "retrieval"}.isdisjoint(done):
        _draw_retrieval(subject, folder)
        _draw_embedding(subject, folder / "embedding.png")
    graded = subject.networks.recognises and "recognition" in done
    if graded:
        _draw_confusion(subject, folder / "confusion.png")
    if subject.method.attended:
        _draw_activation(subject, folder / "activation.png", graded)
    _draw_what_is_compared(subject, folder)


def _draw_flow(subject: Subject, path: pathlib.Path) -> None:
    """Draw the flow of each level: from its head, if it has one, and from its linear read-out, if true flow is known.

    If a level has a temporal stride, its flow over several frames is scaled to flow over one.
    """
    batch = _shown_batch(subject, Reads(flow=subject.has_flow))
    clips = batch.clip[:, 0]
    heads, read = subject.flow_reader(clips)
    frames = subject.method.frames_of(clips.shape[1])
    first = {
        f"{level}, {kind}": np.asarray(flow)[:, :1] / np.diff(frames[level])[0]
        for kind, flows in (("its head", heads), ("read out", read))
        for level, flow in flows.items()
    }
    if not first:
        return
    truth = None if batch.flow is None else batch.flow[:, 0, :1]
    save_figure(draw_flow(clips[:, :2], first, truth=truth, time=0), path)


def _draw_prediction(subject: Subject, folder: pathlib.Path) -> None:
    """Draw frames predicted from the previous ones, including the one after the clip."""
    batch, variables = _shown_batch(subject, Reads(future=1)), subject.variables(REPRESENTATION)
    predicted = jax.jit(subject.method.next_frames)(variables, batch.clip[:, 0])
    frames = np.concatenate([batch.clip[:, 0], batch.future[:, 0]], axis=1)
    rows, titles = predicted_rows(frames, predicted, batch.consecutive[:, 0]), _titles(subject, batch)
    save_figure(draw_strips(rows, titles), folder / "prediction.png")
    save_moving(moving_prediction(rows, titles), folder / "prediction.webp")


def _draw_retrieval(subject: Subject, folder: pathlib.Path) -> None:
    train, test = subject.gallery(REPRESENTATION), subject.test(REPRESENTATION)
    queries = np.linspace(0, len(test.index) - 1, subject.config.figure_clips).astype(int)
    names = subject.names(REPRESENTATION)
    found = {name: subject.nearest(REPRESENTATION, name).rows[queries, :RETRIEVED] for name in names}
    shown = {name: _batch(subject, "train", train.index[rows.ravel()]).clip for name, rows in found.items()}
    asked = _batch(subject, subject.config.split, test.index[queries]).clip[:, 0]
    shown = {name: clips.reshape(*found[name].shape, *clips.shape[2:]) for name, clips in shown.items()}
    labels = {"query_labels": test.labels[queries], "retrieved_labels": {n: train.labels[r] for n, r in found.items()}}
    save_figure(draw_retrieval(asked, shown, **labels, classes=subject.data.classes), folder / "retrieval.png")
    rows = moving_retrieval(asked, shown, **labels, classes=subject.data.classes)
    save_moving(rows, folder / "retrieval.webp")


def _draw_embedding(subject: Subject, path: pathlib.Path) -> None:
    test, names = subject.test(REPRESENTATION), subject.names(REPRESENTATION)
    if len(test.index) < LEAST_CLIPS:
        return
    features = {name: test.feature(name) for name in names}
    save_figure(draw_embedding(features, test.labels, subject.data.classes), path)


def _draw_activation(subject: Subject, path: pathlib.Path, graded: bool) -> None:
    """Draw class-independent activation and, if one classifier is `graded`, Grad-CAM++ for the class it predicts."""
    method, variables = subject.method, subject.variables(LAST if graded else REPRESENTATION)
    batch = _shown_batch(subject)
    clips, names = batch.clip[:, 0], np.array([*subject.data.classes, "no label"])
    titles, maps = _titles(subject, batch), {}
    if graded and not method.classifiers:
        predicted, maps["Grad-CAM++"] = jax.jit(functools.partial(grad_cam, method))(variables, clips)
        titles = [f"{title}, taken for {name}" for title, name in zip(titles, names[predicted], strict=True)]
    maps["activation"] = jax.jit(functools.partial(activation, method))(variables, clips)
    laid = {name: lay_over(clips, values) for name, values in maps.items()}
    save_figure(draw_strips({"frames": clips} | laid, titles), path)


def _draw_what_is_compared(subject: Subject, folder: pathlib.Path) -> None:
    """Draw the flow that a method reads, similarities of the features that it compares, and its highlights."""
    stages = subject.method.stages
    stage = next((stage for stage in stages if stage.reads.flow or stage.reads.clips > 1), stages[0])
    if stage.reads.flow and subject.data.flow_fault(subject.reported):
        return
    reads = Reads(clips=stage.reads.clips, flow=stage.reads.flow, future=stage.reads.future)
    batch = subject.data.complete(_shown_batch(subject, reads), reads)
    variables, titles = subject.variables(REPRESENTATION), _titles(subject, batch)
    if reads.flow:
        flow = batch.flow[:, 0]
        images = {"flow": flow_to_image(flow), "turned": flow_to_image(rotate_flow(flow, np.pi))}
        strips = {"frames": batch.clip[:, 0, : flow.shape[1]]} | {name: np.asarray(x) for name, x in images.items()}
        save_figure(draw_strips(strips, titles), folder / "flow_images.png")
    if similarities := jax.jit(subject.method.similarities)(variables, batch):
        save_figure(draw_similarities(similarities, titles), folder / "similarities.png")
    if highlights := jax.jit(subject.method.highlights)(variables, batch):
        laid = {name: lay_over(batch.clip[:, clip], strength) for name, (clip, strength) in highlights.items()}
        save_figure(draw_strips({"frames": batch.clip[:, 0]} | laid, titles), folder / "highlights.png")


def _draw_confusion(subject: Subject, path: pathlib.Path) -> None:
    recognised, classes = subject.extracted(LAST, subject.config.split), subject.data.classes
    scores = average_views(recognised.logits, subject.config.average)
    predicted = (scores[:, select(subject)[0]] if subject.method.classifiers else scores).argmax(1)
    matrix = confusion_matrix(recognised.labels, predicted, labels=range(len(classes)))
    families = subject.data.families
    save_figure(draw_confusion(matrix, classes, families if set(classes) <= set(families) else None), path)


def _shown_batch(subject: Subject, reads: Reads = ONE_CLIP) -> Batch:
    """The clips of the reported split that pictures show."""
    rows = subject.data.spread(subject.reported, subject.config.figure_clips)
    return _batch(subject, subject.reported, rows, reads)


def _titles(subject: Subject, batch: Batch) -> list[str]:
    return [str(name) for name in np.array([*subject.data.classes, "no label"])[batch.label]]


def _batch(subject: Subject, split: str, rows: Iterable[int], reads: Reads = ONE_CLIP) -> Batch:
    """The clips of a split in these rows of the table."""
    rows = [int(row) for row in rows]
    (batch,) = subject.data.eval_batches(split, len(rows), reads=reads, only=rows)
    return batch
