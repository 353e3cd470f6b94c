"""Checks before a run begins, so that a run that cannot work fails at once instead of after an hour."""

import functools
import re

import jax
import numpy as np

from hcml_jax import cluster
from hcml_jax.batch import Batch, Data, Reads, blank_batch
from hcml_jax.config import ConfigError, nearest
from hcml_jax.evaluation.baselines import check_baselines
from hcml_jax.evaluation.config import PROTOCOLS, EvaluationConfig
from hcml_jax.init_from import Start
from hcml_jax.methods.base import Encoded, Method
from hcml_jax.training.accumulation import check_micro_batches
from hcml_jax.training.config import TrainingConfig
from hcml_jax.training.loop import first_stages
from hcml_jax.training.mesh import Layout, check_batch, make_mesh
from hcml_jax.training.step import abstract_variables

_SIDES = re.compile(r"(?i:(?<![a-z])(left|right)(?![a-z]))|(Left|Right)(?![a-z])")


def check_devices(training: TrainingConfig) -> None:
    """Tells which devices there are; raises ConfigError unless a batch divides over them."""
    mesh = make_mesh()
    check_batch(training.batch_size, mesh)
    kind, processes = mesh.devices.flat[0].device_kind, jax.process_count()
    cluster.say(f"{mesh.size} x {kind}, {processes} process{'es' * (processes > 1)}")


def check_splits(training: TrainingConfig, evaluation: EvaluationConfig) -> None:
    """Raise ConfigError if the reported split is also the one that choices are made by."""
    split = training.validation_split
    if split and split == evaluation.split and not training.validate_on_reported:
        raise ConfigError(
            f"config.training.validation_split and config.evaluation.split are both {split!r}: the best checkpoint and "
            "early ends would be chosen on what is reported. Hold clips out of the training split "
            "(config.data.validation_share), validate on none (''), or set config.training.validate_on_reported"
        )


def check_data(data: Data, training: TrainingConfig | None, evaluation: EvaluationConfig) -> None:
    """Raise ConfigError if splits or labels that a later step needs are missing; training None: it only evaluates."""
    classes, splits = data.classes, data.splits
    wanted = {"evaluation.split": evaluation.split} if classes else {}
    if training or (classes and _wants_gallery(evaluation)):
        wanted["data"] = "train"
    labelled = [*wanted.items()] if classes else []
    if training:
        wanted["training.validation_split"] = training.validation_split
    for field, split in wanted.items():
        if split and split not in splits:
            raise ConfigError(f"config.{field}: the table has no split {split!r}. {nearest(split, splits)}")
    if len(classes) == 1:
        raise ConfigError(f"config.data: all labels are {classes[0]!r}; name 2 classes, or none")
    for field, split in labelled:
        if not data.num_clips(split, labelled_only=True):
            raise ConfigError(f"config.{field}: no clip of split {split!r} that can be used has a label")
    check_evaluation(data, evaluation)


def check_evaluation(data: Data, evaluation: EvaluationConfig) -> None:
    """Raises ConfigError for what protocols need and these clips, or this machine, lack."""
    asked = set(evaluation.protocols)
    if asked & {"neighbours", "linear", "flow", "prediction"}:
        check_baselines(evaluation.baselines)
    crop, side = evaluation.crop or data.sampling["crop"], evaluation.short_side or data.sampling["short_side"]
    if crop > side:
        raise ConfigError(f"config.evaluation: crop {crop} must not exceed short_side {side}")
    if not data.classes and evaluation.split not in data.splits:
        cluster.say(f"the table has no split {evaluation.split!r}: clips of split {data.splits[0]!r} are shown")
    if not data.classes or not _wants_gallery(evaluation):
        return
    gallery = data.num_labelled("train")
    for field, protocol in (("neighbours", "neighbours"), ("recall_at", "retrieval")):
        ks = getattr(evaluation, field)
        if protocol in asked and ks[0] > gallery:
            raise ConfigError(
                f"config.evaluation.{field}: {ks[0]} is more than the {gallery} labelled clips of split 'train'"
            )
        if protocol in asked and max(ks) > gallery:
            cluster.say(f"of config.evaluation.{field}, those above the {gallery} clips of split 'train' are left out")


def _wants_gallery(evaluation: EvaluationConfig) -> bool:
    return any(PROTOCOLS[name].gallery for name in evaluation.protocols)


def check_given(start: Start | None, data: Data) -> None:
    """Report what is evaluated; raise ConfigError if its trained classifier has other classes than the clips."""
    if not start:
        return
    cluster.say(f"nothing was trained here: what config.init_from names is evaluated, {start.path}")
    if start.recognises and not start.classes and data.classes:
        cluster.say(
            "caution: these weights do not tell their classes; they are taken to be the clips', in this order: "
            f"{', '.join(data.classes[:5])}, ..."
        )
    if start.recognises and start.classes and start.classes != data.classes:
        pairs = zip(start.classes, data.classes, strict=False)
        theirs, ours = next((pair for pair in pairs if pair[0] != pair[1]), (start.classes[-1], data.classes[-1]))
        raise ConfigError(
            f"config.init_from.path {start.path} classifies other classes, such as {theirs!r} where these clips have "
            f"{ours!r}: leave its classifier out (config.init_from.prefixes=('backbone',))"
        )


def check_selection(method: Method, data: Data, evaluation: EvaluationConfig, start: Start | None) -> None:
    """Raises ConfigError if a method has several classifiers to choose from, and no split to choose one by."""
    split = evaluation.selection
    if not method.classifiers or "recognition" not in evaluation.protocols or (start and start.chosen):
        return
    wrong = {"train": "trained on", evaluation.split: "reported"}.get(split)
    if split not in data.splits:
        wrong = "not there"
    elif not data.num_labelled(split):
        wrong = "without labels"
    if wrong:
        raise ConfigError(
            f"config.evaluation.selection: one of {len(method.classifiers)} classifiers is chosen by a split that is "
            f"neither trained on nor reported; {split!r} is {wrong}. Hold clips out of the training split "
            "(config.data.validation_share)"
        )


def check_method(method: Method, data: Data, training: TrainingConfig, jitter: bool) -> None:
    """Raises ConfigError unless every stage can read what it wants of these clips; warns of mirrored labels."""
    stages = first_stages(method, training.first_stage)
    for stage in stages:
        check_micro_batches(stage, training.batch_size, make_mesh().size)
        if stage.reads.random and not jitter:
            raise ConfigError(f"config.data.jitter must be on: stage {stage.name!r} draws its views, {stage.reads}")
        for split in filter(None, ("train", training.validation_split)):
            if stage.reads.flow and (fault := data.flow_fault(split)):
                raise ConfigError(f"config.data: stage {stage.name!r} reads flow; {fault}")
    sides = [name for name in data.classes if _SIDES.search(name)]
    if method.flips and sides:
        cluster.say(f"caution: config.method.flip mirrors clips, which may change labels such as {sides[0]!r}")


def _completed(data: Data, batch: Batch, reads: Reads) -> Batch:
    """An abstract batch with all that a stage reads; raises ConfigError where a network cannot compute its flow."""
    try:
        return jax.eval_shape(functools.partial(data.complete, reads=reads), batch)
    except ValueError as error:
        raise ConfigError(f"config.data.flow: its network does not fit these clips: {error}") from error


def check_crop(method: Method, data: Data, evaluation: EvaluationConfig) -> None:
    """Raise ConfigError if the network does not fit clips of the evaluation's own crop size."""
    if not (side := evaluation.crop):
        return
    clips = jax.ShapeDtypeStruct((1, data.clip_shape[0], side, side, 3), np.uint8)
    variables = abstract_variables(method, data.clip_shape, Layout(make_mesh()))
    try:
        jax.eval_shape(method.encode, variables, clips)
        jax.eval_shape(method.next_frames, variables, clips)
    except (ValueError, TypeError) as error:
        raise ConfigError(
            f"config.evaluation.crop: the network does not fit clips of {side} x {side} pixels: {error}"
        ) from error


def check_stages(method: Method, data: Data, training: TrainingConfig) -> None:
    """Trace the loss of every stage, and `encode`, so that a mismatch fails now instead of when its stage begins.

    Raises:
      ConfigError: if one does not work with these clips and this batch.
    """
    key, layout = jax.random.key(0), Layout(make_mesh())
    given = functools.partial(blank_batch, training.batch_size, data.clip_shape, like=jax.ShapeDtypeStruct)
    clips = jax.ShapeDtypeStruct((training.batch_size, *data.clip_shape), np.uint8)
    try:
        variables = abstract_variables(method, data.clip_shape, layout)
        for stage in first_stages(method, training.first_stage):
            loss = functools.partial(method.loss, stage=stage, train=True)
            batch = _completed(data, given(stage.reads), stage.reads)
            jax.eval_shape(loss, variables, batch, key)
        encoded = jax.eval_shape(method.encode, variables, clips)
        jax.eval_shape(method.next_frames, variables, clips)
        if not isinstance(encoded, Encoded) or set(encoded.maps) != set(method.frames_of(data.clip_shape[0])):
            raise TypeError("encode must give an Encoded whose maps are those of frames_of")
    except (ValueError, TypeError) as error:
        raise ConfigError(f"config.method does not fit these clips: {error}") from error
