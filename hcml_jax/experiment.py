"""One experiment from its config: what `launch.py` calls."""

import functools
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from data_pipelines.config import DataConfig
from hcml_jax import cluster, methods
from hcml_jax.config import ConfigError, build, fill, nearest
from hcml_jax.evaluation.config import EvaluationConfig
from hcml_jax.files import replace_text
from hcml_jax.init_from import InitFrom, Start
from hcml_jax.methods.base import Variables
from hcml_jax.training import workdir as workdirs
from hcml_jax.training.accumulation import check_micro_batches
from hcml_jax.training.config import TrainingConfig
from hcml_jax.training.loop import train
from hcml_jax.training.mesh import Layout, check_batch, make_mesh
from hcml_jax.training.metrics import read_records

FIELDS = ("seed", "method", "data", "training", "evaluation", "init_from")


def complete(config: Mapping[str, Any]) -> ConfigDict:
    """What a file of `configs/` returns: the config with every default spelt out, locked.

    So every field can be set on the command line, and the run's folder records them all.
    """
    return ConfigDict(_with_defaults(config)).lock()


def _with_defaults(config: Mapping[str, Any]) -> dict[str, Any]:
    kinds = {
        "data": DataConfig,
        "training": TrainingConfig,
        "evaluation": EvaluationConfig,
        "init_from": InitFrom,
    }
    config = {"init_from": {}, **config}
    method = config.get("method")
    if isinstance(method, Mapping) and method.get("name") in methods.METHODS:
        kinds["method"] = methods.METHODS[method["name"]][1]
    return {
        name: fill(kinds[name], value) if name in kinds and isinstance(value, Mapping) else value
        for name, value in config.items()
    }


def run(config: dict[str, Any], workdir: str, mode: str) -> None:
    """Trains, evaluates or exports.

    Args:
      config: the fields `FIELDS`, plain values.
      workdir: the run's folder.
      mode: "train" (all stages, from the last checkpoint if there is one, then evaluate), "evaluate" or "export".

    Raises:
      UserError, OSError: what a user can mend; the message says how.
    """
    config = _with_defaults(config)
    check_fields(config)
    folder = pathlib.Path(workdir)
    if mode != "train":
        workdirs.read(folder)  # a mistyped folder should not become a new one
    if mode == "export":
        workdirs.check(folder, config=config)
        from hcml_jax.inference import export

        if cluster.is_first():
            print(f"exported to {export(folder)}")
        cluster.meet()
        return
    Experiment(config, folder, mode).run()


def check_fields(config: dict[str, Any]) -> None:
    """Raises ConfigError unless the top level of a config holds exactly `FIELDS`."""
    for name in config:
        if name not in FIELDS:
            raise ConfigError(f"config.{name} is not a field. {nearest(name, FIELDS)}")
    for name in FIELDS:
        if name not in config:
            raise ConfigError(f"config.{name} is missing")
    if type(config["seed"]) is not int or config["seed"] < 0:
        raise ConfigError(f"config.seed must be an int, 0 or more, not {config['seed']!r}")


class Experiment:
    """A config's method and data, in a workdir."""

    def __init__(self, config: dict[str, Any], workdir: pathlib.Path, mode: str):
        import data_pipelines

        self._workdir, self._seed, self._mode = workdir, config["seed"], mode
        self._training = build(TrainingConfig, config["training"], "config.training")
        self._evaluation = build(EvaluationConfig, config["evaluation"], "config.evaluation")
        self._init_from = build(InitFrom, config["init_from"], "config.init_from")
        data = build(DataConfig, config["data"], "config.data")
        methods.build_method(config["method"], num_classes=2)  # a typo should not wait for the data
        if mode == "train":
            mesh = make_mesh()
            check_batch(self._training.batch_size, mesh)
            kind, processes = mesh.devices.flat[0].device_kind, jax.process_count()
            cluster.say(f"{mesh.size} x {kind}, {processes} process{'es' * (processes > 1)}")
        workdirs.check(workdir, config=config)
        workdirs.check_writable(workdir)
        told = {"progress": cluster.say, "process": jax.process_index()}
        self._data = cluster.first_then_others(
            lambda: data_pipelines.open_data(data, workdir, **told)
        )
        self._check_data()
        classes = self._data.classes
        self._method = methods.build_method(config["method"], len(classes))
        described = {
            "config": config,
            "classes": classes,
            "clip_shape": self._data.clip_shape,
            "clips": self._data.census,
        }
        workdirs.check(workdir, **described)
        self._data.warm_up()
        if mode == "train":
            self._check_micro_batches()
        if not workdirs.claimed(workdir):
            self._check_stages()
            if self._init_from.path:
                cluster.say(str(self._start))
        claim = workdirs.claim if cluster.is_first() else workdirs.check
        cluster.first_then_others(lambda: claim(workdir, **described))

    def run(self) -> None:
        """Trains, unless the mode is "evaluate", and evaluates."""
        if self._mode == "train":
            start = self._begin if self._init_from.path else None
            train(self._method, self._data, self._training, self._workdir, self._seed, start)
        self.evaluate()
        cluster.meet()  # the first one draws; the others would not wait as long at their end

    @functools.cached_property
    def _start(self) -> Start:
        """What `init_from` holds, checked; read once, and not at all by a run that resumes."""
        batch = {"clip": jax.ShapeDtypeStruct((1, *self._data.clip_shape), np.uint8)}
        variables = jax.eval_shape(self._method.init, jax.random.key(0), batch)
        return Start(self._init_from, variables, self._method.normalisation)

    def _begin(self, variables: Variables) -> Variables:
        return self._start(variables)

    def _check_data(self) -> None:
        """Raises ConfigError for splits and labels that would be missed only later."""
        data, classes = self._data, self._data.classes
        wanted = {"data": "train", "training.validation_split": self._training.validation_split}
        if classes:
            wanted["evaluation.split"] = self._evaluation.split
        for field, split in wanted.items():
            if split and split not in data.splits:
                raise ConfigError(
                    f"config.{field}: the table has no split {split!r}. {nearest(split, data.splits)}"
                )
        if len(classes) == 1:
            raise ConfigError(
                f"config.data: all labels are {classes[0]!r}; name 2 classes, or none"
            )
        for field, split in {"data": "train", "evaluation.split": self._evaluation.split}.items():
            if classes and not data.num_clips(split, labelled_only=True):
                raise ConfigError(
                    f"config.{field}: no clip of split {split!r} that can be used has a label"
                )

    def _check_micro_batches(self) -> None:
        for stage in self._method.stages:
            check_micro_batches(stage, self._training.batch_size, make_mesh().size)

    def _check_stages(self) -> None:
        """Traces the loss of every stage, so that what does not fit fails now, not when its stage comes.

        Raises:
          ConfigError: if one does not work with these clips and this batch.
        """
        clips = self._training.batch_size
        batch = {
            "clip": jax.ShapeDtypeStruct((clips, *self._data.clip_shape), np.uint8),
            "label": jax.ShapeDtypeStruct((clips,), np.int32),
        }
        key = jax.random.key(0)
        try:
            variables = jax.eval_shape(self._method.init, key, batch)
            for stage in self._method.stages:
                loss = functools.partial(self._method.loss, stage=stage)
                jax.eval_shape(loss, variables, batch, key)
        except (ValueError, TypeError) as error:
            raise ConfigError(f"config.method does not fit these clips: {error}") from error

    def evaluate(self) -> None:
        """Writes `results.json` and `figures/`."""
        from hcml_jax.evaluation.evaluate import Evaluator
        from hcml_jax.training.restore import positions, recognising_stages, restore
        from hcml_jax.training.step import abstract_variables, init_variables
        from hcml_jax.visualization.report import Report

        clip_shape, local = self._data.clip_shape, Layout(make_mesh(jax.local_devices()))
        abstract = abstract_variables(self._method, clip_shape, Layout(make_mesh()))
        at = positions(self._method, self._workdir)
        representation, last = (
            jax.device_put(
                jax.device_get(restore(self._workdir, at[name], abstract)), local.replicated
            )
            for name in ("representation", "last")
        )
        recognises = at["last"].stage in recognising_stages(self._method)
        batch_size = self._evaluation.batch_size or self._training.batch_size
        batch_size += -batch_size % jax.device_count()
        evaluator = Evaluator(self._method, self._data, self._evaluation, batch_size, local)
        evaluation = evaluator.evaluate(
            untrained=init_variables(self._method, clip_shape, self._seed, local),
            representation=representation,
            last=last,
            recognises=recognises,
        )
        results = evaluation.results | {"checkpoint": {name: p.step for name, p in at.items()}}
        if not cluster.is_first():
            return
        replace_text(self._workdir / "results.json", json.dumps(results, indent=1) + "\n")
        cluster.say("[evaluate] pictures")
        figures = self._workdir / "figures"
        Report(
            evaluation, self._method, representation, self._data, self._evaluation, figures
        ).write(read_records(self._workdir))
        print(f"results in {self._workdir / 'results.json'}, pictures in {figures}")
        if self._data.skipped:
            listed = self._workdir / "skipped.jsonl"
            print(f"{len(self._data.skipped)} clips were left out: {listed} lists them")
