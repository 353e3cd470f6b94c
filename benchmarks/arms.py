"""Arms of an ablation on Motion Sprites, all tuned and evaluated in the same way.

Every arm's own rates are multiplied by one of three factors, chosen on the validation split at the first seed by the
first figure of its tables (kNN by default); then all seeds are reported on the test split. Every run
has its own folder and process, and resumes where it stopped; `benchmarks/ablation.py` says how several share a GPU.
"""

import argparse
import dataclasses
import functools
import json
import math
import operator
import os
import pathlib
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

from ablation import cell
from runs import Processes

FACTORS = (1 / 3, 1.0, 3.0)  # of an arm's own rates


@dataclasses.dataclass(frozen=True)
class Arm:
    """What is trained and evaluated.

    Attributes:
      source: the config of the method.
      fields: fields of the method that differ from that config.
      data: fields of the data that differ from the ablation's.
      prepare: writes the arm's data to a folder and returns further fields of the data; None: nothing is needed.
      feature: the evaluated feature.
      maker: the maker of frames that the protocol "prediction" measures.
      read_of: the arm whose networks this one evaluates with other fields of the method, only by the figure that
        chooses rates; "": it trains its own.
    """

    source: ModuleType
    fields: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    data: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    prepare: Callable[[pathlib.Path], Mapping[str, Any]] | None = None
    feature: str = "backbone"
    maker: str = "learnt"
    read_of: str = ""


@dataclasses.dataclass(frozen=True)
class Figure:
    """A score of a run.

    Attributes:
      protocol: protocol that measures it.
      path: its path in the results, with "{feature}" and "{maker}" in place of the arm's.
      unit: unit in tables; 0.01: per cent.
    """

    protocol: str
    path: tuple[str, ...]
    unit: float = 0.01

    def of(self, arm: Arm) -> tuple[str, ...]:
        """Its path for an arm."""
        return tuple(name.format(feature=arm.feature, maker=arm.maker) for name in self.path)


FIGURES = {
    "kNN": Figure("neighbours", ("knn", "{feature}")),
    "linear": Figure("linear", ("linear", "{feature}")),
    "R@1": Figure("retrieval", ("retrieval", "{feature}", "1")),
}


@dataclasses.dataclass(frozen=True)
class Ablation:
    """Arms on the same clips.

    Attributes:
      name: name of the file of its tables, and of its command.
      base: the config of the clips and of how features are read.
      arms: name -> arm.
      tables: title -> names of arms.
      figures: figures reported for each arm; the first, more is better, chooses its rates.
      readouts: grids that maps are pooled to, beside their means.
      protocols: further protocols, whose figures are reported elsewhere.
    """

    name: str
    base: ModuleType
    arms: Mapping[str, Arm]
    tables: Mapping[str, tuple[str, ...]]
    figures: Mapping[str, Figure] = dataclasses.field(default_factory=FIGURES.copy)
    readouts: tuple[str, ...] = ()
    protocols: tuple[str, ...] = ()

    def protocols_of(self, name: str, split: str) -> tuple[str, ...]:
        """The protocols of an arm on the reported split, "test", or on the split that chooses rates."""
        if split != "test" or self.arms[name].read_of:
            return (self.chosen_by.protocol,)
        return tuple(dict.fromkeys([*(figure.protocol for figure in self.figures.values()), *self.protocols]))

    @property
    def chosen_by(self) -> Figure:
        """The first figure."""
        return next(iter(self.figures.values()))


class Runs:
    """The runs of an ablation in a folder, made when they are first asked for."""

    def __init__(self, ablation: Ablation, workdir: pathlib.Path, processes: Processes, scale: float):
        """`processes`: in which they run; `scale`: of all steps."""
        self._ablation, self._workdir, self._processes, self._scale = ablation, workdir, processes, scale
        self._prepared: dict[str, Mapping[str, Any]] = {}

    def prepare(self, name: str) -> None:
        """Writes what an arm reads, before any runs."""
        if make := self._ablation.arms[name].prepare:
            self._prepared[name] = make(self._workdir)

    def tried(self, name: str, seed: int) -> dict[float, float]:
        """Factor of the rates -> the first figure on the validation split."""
        return self._processes.side_by_side(lambda factor: self._validated(name, seed, factor), FACTORS)

    def run(self, name: str, seed: int, factor: float, split: str = "test") -> pathlib.Path:
        """The folder of a run."""
        plain = "".join(c if c.isalnum() else "_" for c in f"{name} {factor:.3g} {split}")
        folder = self._workdir / f"{plain}_{seed}"
        config = self.config(name, seed, factor, split)
        if learnt_by := self._ablation.arms[name].read_of:
            config["init_from"] = {"path": str(self.run(learnt_by, seed, factor))}
        self._processes.finish(config, folder, "evaluate" if learnt_by else "train")
        return folder

    def config(self, name: str, seed: int, factor: float, split: str) -> dict[str, Any]:
        """An arm's run, read on a split."""
        arm, config = self._ablation.arms[name], self._ablation.base.get_config().to_dict()
        config["method"] = arm.source.get_config().to_dict()["method"] | arm.fields
        stages = config["method"]["stages"].items()
        config["method"]["stages"] = {stage: self._scaled(schedule, factor) for stage, schedule in stages}
        config["seed"] = config["data"]["labels_seed"] = seed
        config["data"] |= {**arm.data, **self._prepared.get(name, {})}
        config["training"] |= {"validation_split": "", "checkpoint_every": 1000}
        config["evaluation"] |= {
            "split": split,
            "protocols": self._ablation.protocols_of(name, split),
            "readouts": self._ablation.readouts,
            "baselines": (),
            "figure_clips": 0,
        }
        return config

    def _scaled(self, schedule: Mapping[str, Any], factor: float) -> dict[str, Any]:
        """A schedule at `factor` times its rate."""
        steps, warmup = max(2, round(schedule["steps"] * self._scale)), schedule["warmup"] * self._scale
        return {**schedule, "learning_rate": schedule["learning_rate"] * factor, "steps": steps, "warmup": warmup}

    def _validated(self, name: str, seed: int, factor: float) -> float:
        results = json.loads((self.run(name, seed, factor, "val") / "results.json").read_text())
        path = self._ablation.chosen_by.of(self._ablation.arms[name])
        return functools.reduce(operator.getitem, path, results)


def stages_of(source: ModuleType, *names: str) -> dict[str, Any]:
    """The schedules of some stages of a config."""
    stages = source.get_config().to_dict()["method"]["stages"]
    return {name: stages[name] for name in names}


def tables(ablation: Ablation, folders: Mapping[str, list[pathlib.Path]]) -> str:
    """Markdown of those arms that were run."""
    lines = []
    for title, names in ablation.tables.items():
        lines += ["", f"| {title} | {' | '.join(ablation.figures)} |", "|---" * (len(ablation.figures) + 1) + "|"]
        for name in names:
            if name in folders:
                given = ((figure.of(ablation.arms[name]), figure.unit) for figure in ablation.figures.values())
                cells = (cell(folders[name], *path, unit=unit) for path, unit in given)
                lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines[1:])


def main(ablation: Ablation, description: str) -> None:
    """Runs what has not been run, and prints the tables."""
    run(ablation, arguments_of(ablation, description).parse_args())


def arguments_of(ablation: Ablation, description: str) -> argparse.ArgumentParser:
    """The command line of an ablation."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--workdir", type=pathlib.Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--arms", nargs="+", choices=list(ablation.arms), default=list(ablation.arms))
    parser.add_argument("--untuned", action="store_true", help="at the configs' own rates")
    parser.add_argument("--processes", type=int, default=1, help="runs at a time")
    parser.add_argument("--scale", type=float, default=1.0, help="of all steps")
    return parser


def run(ablation: Ablation, arguments: argparse.Namespace) -> dict[str, list[pathlib.Path]]:
    """Runs what has not been run, writes and prints the tables; gives the folders of each arm's seeds."""
    # This process may render; the runs need the GPU's memory.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    processes = Processes(arguments.processes)
    runs = Runs(ablation, arguments.workdir, processes, arguments.scale)
    for name in arguments.arms:
        runs.prepare(name)

    def finished(name: str) -> tuple[dict[float, float], list[pathlib.Path]]:
        learnt_by = ablation.arms[name].read_of or name
        tried = {1.0: math.nan} if arguments.untuned else runs.tried(learnt_by, arguments.seeds[0])
        factor = max(tried, key=tried.get)
        return tried, list(processes.side_by_side(lambda seed: runs.run(name, seed, factor), arguments.seeds).values())

    found = processes.side_by_side(finished, arguments.arms)
    if arguments.untuned:
        (arguments.workdir / "choices.json").unlink(missing_ok=True)
    else:
        choices = {name: {f"{factor:.3g}": one for factor, one in tried.items()} for name, (tried, _) in found.items()}
        (arguments.workdir / "choices.json").write_text(json.dumps(choices, indent=1))
    folders = {name: folders for name, (_, folders) in found.items()}
    text = tables(ablation, folders)
    (arguments.workdir / f"{ablation.name}.md").write_text(text + "\n")
    print(text, flush=True)
    return folders
