"""One experiment from its config, from top to bottom: what `launch.py` calls."""

import dataclasses
import functools
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
from ml_collections import ConfigDict

from data_pipelines.config import DataConfig, is_network
from hcml_jax import cluster, methods, preflight
from hcml_jax.batch import Data
from hcml_jax.config import ConfigError, build, fill
from hcml_jax.evaluation.config import EvaluationConfig
from hcml_jax.init_from import InitFrom, Start, known_classes, start_of
from hcml_jax.methods.base import Method
from hcml_jax.training.config import TrainingConfig
from hcml_jax.training.loop import train
from hcml_jax.training.metrics import read_records
from hcml_jax.training.workdir import Workdir


@dataclasses.dataclass(frozen=True)
class ExperimentConfig:
    """The fields of a config.

    Attributes:
      seed: of the first parameters, the order of clips and all that is drawn; 0 or more.
      method: `name`, and the fields of that method's own config.
      data, training, evaluation, init_from: see their classes.
    """

    seed: int
    method: dict[str, Any]
    data: DataConfig
    training: TrainingConfig
    evaluation: EvaluationConfig
    init_from: InitFrom = InitFrom()

    def __post_init__(self):
        if self.seed < 0:
            raise ConfigError(f"seed must be 0 or more, not {self.seed}")
        if self.training.first_stage and not self.init_from.path:
            raise ConfigError(f"training.first_stage {self.training.first_stage!r} needs weights: name init_from.path")


def complete(config: Mapping[str, Any]) -> ConfigDict:
    """Spells out every default and locks the config: any field can be set on the command line, and is recorded."""
    return ConfigDict(_filled(config)).lock()


def _filled(config: Mapping[str, Any]) -> dict[str, Any]:
    filled = fill(ExperimentConfig, config)
    method = filled.get("method")
    if isinstance(method, Mapping) and "name" in method:
        filled["method"] = fill(methods.config_class(method["name"]), method)
    return filled


def run(config: Mapping[str, Any], workdir: str, mode: str) -> None:
    """Trains, evaluates, reports or exports.

    Args:
      config: the fields of `ExperimentConfig`, plain values.
      workdir: the run's folder.
      mode: "train" (all stages, from the last checkpoint if there is one, then evaluate), "evaluate", "report" (the
        page of what was evaluated) or "export".

    Raises:
      UserError, OSError: errors that the user can fix; the message says how.
    """
    config = _filled(config)
    typed = build(ExperimentConfig, config)
    make_method = functools.partial(methods.build_method, config["method"])
    first = make_method(num_classes=2)  # a typo should not wait for the data
    folder = Workdir(pathlib.Path(workdir))
    writes = mode in ("export", "report")
    if writes or (mode == "evaluate" and not typed.init_from.path):
        folder.read()  # a mistyped folder should not become a new one
    folder.check(config=config)
    if writes:
        return _write(mode, folder)
    if mode == "train":
        preflight.check_devices(typed.training)
        preflight.check_splits(typed.training, typed.evaluation)
    elsewhere = mode == "evaluate" and not folder.trained  # what init_from names is evaluated
    known = known_classes(typed.init_from) if elsewhere else ()
    reads = [stage.reads for stage in first.stages]
    future, flow = max(one.future for one in reads), any(one.flow for one in reads)
    data = _open(typed.data, folder, flow, future=future, classes=known)
    preflight.check_data(data, typed.training if mode == "train" else None, typed.evaluation)
    method = make_method(num_classes=len(data.classes))
    if mode == "train":
        preflight.check_method(method, data, typed.training, typed.data.jitter)
    preflight.check_crop(method, data, typed.evaluation)
    start = start_of(typed.init_from, method, data.clip_shape)
    given = start() if start and elsewhere else None
    preflight.check_given(given, data)
    preflight.check_selection(method, data, typed.evaluation, given)
    if not folder.claimed:
        preflight.check_stages(method, data, typed.training)
        if start:
            cluster.say(str(start()))
    claim = folder.claim if cluster.is_first() else folder.check
    described = {"config": config, "classes": data.classes, "clip_shape": data.clip_shape, "clips": data.census}
    cluster.first_then_others(lambda: claim(**described))
    if mode == "train":
        train(method, data, typed.training, folder.path, typed.seed, start)
    _evaluate(typed, folder, method, data, given)
    cluster.meet()  # the first process still draws figures; at exit the others would not wait that long


def _write(what: str, folder: Workdir) -> None:
    """The "export" or the "report" of a run as it stands."""
    from hcml_jax.inference import export
    from hcml_jax.visualization.page import write_page

    if what == "export" and jax.process_count() > 1:
        raise ConfigError(f"--mode=export is for one process, not {jax.process_count()}")
    if cluster.is_first():
        print(f"{what} in {export(folder.path) if what == 'export' else write_page(folder.path)}")
    cluster.meet()


def _open(config: DataConfig, folder: Workdir, flow: bool, **options: Any) -> Data:
    """The data; `flow`: whether any stage reads it."""
    import data_pipelines

    if is_network(config.flow) and flow:
        from hcml_jax.flow_networks import flow_network

        options["network"] = flow_network(config.flow)
    opened = functools.partial(data_pipelines.open_data, config, folder.path, process=jax.process_index(), **options)
    data = cluster.first_then_others(opened)
    data.warm_up()
    return data


def _evaluate(config: ExperimentConfig, folder: Workdir, method: Method, data: Data, given: Start | None) -> None:
    from hcml_jax.evaluation.evaluate import evaluate
    from hcml_jax.evaluation.networks import Networks
    from hcml_jax.evaluation.subject import Subject
    from hcml_jax.visualization.page import write_page
    from hcml_jax.visualization.report import write_report

    networks = Networks(method, data, folder, config.seed, given)
    subject = Subject(networks, config.evaluation, config.evaluation.batch_size or config.training.batch_size)
    evaluate(subject)
    if cluster.is_first():
        write_report(subject, read_records(folder.path), folder.figures)
        print(f"results in {folder.results}, to look at in {write_page(folder.path)}")
        if data.skipped:
            print(f"{len(data.skipped)} clips were left out: {folder.path / 'skipped.jsonl'} lists them")
