"""One experiment from its config: what `launch.py` calls."""

import json
import pathlib
import sys
from typing import Any

from hcml_jax import methods
from hcml_jax.config import ConfigError, build, nearest
from hcml_jax.evaluation.config import EvaluationConfig
from hcml_jax.training import workdir as workdirs
from hcml_jax.training.config import TrainingConfig
from hcml_jax.training.loop import train
from hcml_jax.training.metrics import read_records, replace_text

FIELDS = ("seed", "method", "data", "training", "evaluation")


def run(config: dict[str, Any], workdir: str, mode: str) -> None:
    """Trains, evaluates or exports.

    Args:
      config: the fields `FIELDS`, plain values.
      workdir: the run's folder.
      mode: "train" (all stages, from the last checkpoint if there is one, then evaluate), "evaluate" or "export".

    Raises:
      UserError, OSError: what a user can mend; the message says how.
    """
    check_fields(config)
    folder = pathlib.Path(workdir)
    if mode != "train":
        workdirs.read(folder)  # a mistyped folder should not become a new one
    if mode == "export":
        from hcml_jax.inference import export

        print(f"exported to {export(folder)}")
        return
    Experiment(config, folder).run(mode)


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

    def __init__(self, config: dict[str, Any], workdir: pathlib.Path):
        import data_pipelines

        self._workdir, self._seed = workdir, config["seed"]
        self._training = build(TrainingConfig, config["training"], "config.training")
        self._evaluation = build(EvaluationConfig, config["evaluation"], "config.evaluation")
        data = build(data_pipelines.DataConfig, config["data"], "config.data")
        methods.build_method(config["method"], num_classes=2)  # a typo should not wait for the data
        self._clip_shape = (data.frames, data.crop, data.crop, 3)
        workdirs.check(workdir, config=config)
        self._data = data_pipelines.open_data(data, workdir)
        self._check_splits()
        classes = self._data.classes
        self._method = methods.build_method(config["method"], len(classes))
        workdirs.claim(workdir, config=config, classes=classes, clip_shape=self._clip_shape)

    def run(self, mode: str) -> None:
        """Trains, unless `mode` is "evaluate", and evaluates."""
        if mode == "train":
            train(self._method, self._data, self._training, self._workdir, self._seed)
        self.evaluate()

    def _check_splits(self) -> None:
        """Raises ConfigError for a split that would be missed only after training."""
        wanted = {"training.validation_split": self._training.validation_split}
        if self._data.classes:
            wanted["evaluation.split"] = self._evaluation.split
        for field, split in wanted.items():
            if split and split not in self._data.splits:
                raise ConfigError(
                    f"config.{field}: the table has no split {split!r}. "
                    f"{nearest(split, self._data.splits)}"
                )

    def evaluate(self) -> None:
        """Writes `results.json` and `figures/`."""
        from hcml_jax.evaluation.evaluate import Evaluator
        from hcml_jax.training.restore import (
            abstract_variables,
            positions,
            restore,
            untrained_variables,
        )
        from hcml_jax.visualization.report import Report

        print("evaluating", file=sys.stderr, flush=True)
        abstract = abstract_variables(self._method, self._clip_shape)
        at = positions(self._method, self._workdir)
        representation, last = (
            restore(self._workdir, at[name], abstract) for name in ("representation", "last")
        )
        recognises = "classification" in self._stage(at["last"].stage).losses
        batch_size = self._evaluation.batch_size or self._training.batch_size
        evaluator = Evaluator(self._method, self._data, self._evaluation, batch_size)
        evaluation = evaluator.evaluate(
            untrained=untrained_variables(self._method, self._clip_shape, self._seed),
            representation=representation,
            last=last,
            recognises=recognises,
        )
        results = evaluation.results | {"checkpoint": {name: p.step for name, p in at.items()}}
        replace_text(self._workdir / "results.json", json.dumps(results, indent=1) + "\n")
        figures = self._workdir / "figures"
        Report(
            evaluation, self._method, representation, self._data, self._evaluation, figures
        ).write(read_records(self._workdir))
        print(f"results in {self._workdir / 'results.json'}, pictures in {figures}")
        if self._data.skipped:
            listed = self._workdir / "skipped.jsonl"
            print(f"{len(self._data.skipped)} videos were left out: {listed} lists them")

    def _stage(self, name: str):
        return next(stage for stage in self._method.stages if stage.name == name)
