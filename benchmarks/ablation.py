"""The paper's ablations on Motion Sprites with few labels: `python benchmarks/ablation.py --workdir runs/ablation`.

Table 2 (motion blocks, self-supervision), Figure 3 (levels added one by one), one level at a time against all at once,
Table 1 (supervisions by level), and controls that are not in the paper: supervision by action at every level, then
joint; and the networks of Figure 3 on the labels alone, since it adds a motion block with each level.
Every arm's last stage, which learns the classifier, is tuned on the validation split with the same tries, at the first
seed; then all seeds are reported on the test split. A seed determines the initial parameters, the order of clips and
which clips keep their label. With `--appearance-cue` levels are evaluated twice: by probes and neighbours fitted to the
training clips, whose colours depend on the class, and by ones fitted to clips whose colours do not. The second shows
what a level holds beside colour. `--choices FILE` takes the choices of an earlier run's `choices.json`
instead of tuning those arms. Every run has its own folder and process, and resumes where it stopped.

Start CUDA's service for sharing (`nvidia-cuda-mps-control -d`) before several processes use one GPU (`--processes 12`).
"""

import argparse
import dataclasses
import functools
import itertools
import json
import pathlib
import statistics
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from runs import Processes, call

from configs import hcml_sprites, supervised_sprites
from hcml_jax.config import UserError, nearest
from hcml_jax.evaluation.intervals import PerVideo, intervals

STEPS, RATES = (300, 1200, 2400), (3e-3, 1e-2, 3e-2)
TRIES = tuple(itertools.product(STEPS, RATES))
SHORT = (300, 1e-2)  # the try that chooses the rate of levels learnt all at once
RATES_AT_ONCE = (5e-3, 1.5e-2, 3e-2)
PROTOCOLS = ("neighbours", "linear")  # of levels; a classifier's is recognition

BLOCKS = tuple(supervised_sprites.get_config().method.motion_blocks)
Found = Mapping[str, list[pathlib.Path]]


@dataclasses.dataclass(frozen=True)
class Arm:
    """A way to train a classifier.

    Attributes:
      levels: supervisions of the levels that are learnt first, lowest level first; (): none.
      blocks: for a network without levels, the stages that are followed by a motion block.
      at_once: whether the levels learn at the same time.
      joint: whether a classifier is learnt at all.
    """

    levels: tuple[str, ...] = ()
    blocks: tuple[str, ...] = BLOCKS
    at_once: bool = False
    joint: bool = True


HIERARCHY = ("reconstruction", "contrastive", "contrastive")
ARMS = {
    "R2D": Arm(blocks=()),
    "one motion block": Arm(blocks=BLOCKS[:1]),
    "two motion blocks": Arm(blocks=BLOCKS[:2]),
    "motion blocks": Arm(),
    "HCML": Arm(HIERARCHY),
    "HCML, level 0": Arm(HIERARCHY[:1]),
    "HCML, levels 0 and 1": Arm(HIERARCHY[:2]),
    "HCML, all levels at once": Arm(HIERARCHY, at_once=True),
    "action at every level": Arm(("action",) * 3),
    "reconstruction at every level": Arm(("reconstruction",) * 3, joint=False),
}
TABLES = {
    "Table 2": ("R2D", "motion blocks", "HCML"),
    "Figure 3": ("R2D", "HCML, level 0", "HCML, levels 0 and 1", "HCML"),
    "its networks on the labels alone": ("R2D", "one motion block", "two motion blocks", "motion blocks"),
    "training of the levels": ("HCML", "HCML, all levels at once"),
    "supervision of the levels": ("HCML", "action at every level"),
}
SUPERVISIONS = {
    "action": "action at every level",
    "reconstruction": "reconstruction at every level",
    "contrastive": "HCML",
}


def learnt_with(name: str) -> str:
    """The arm whose run learns an arm's levels: a shorter hierarchy shares the first levels of HCML's run, since a
    level is learnt before those above it."""
    arm = ARMS[name]
    return "HCML" if arm == Arm(HIERARCHY[: len(arm.levels)]) and arm.levels else name


@dataclasses.dataclass(frozen=True)
class Runs:
    """The runs of a folder, made when they are first asked for.

    Attributes:
      workdir: the folder.
      scale: of all steps.
      cue: the share of training clips whose colours go with the class.
      processes: in which they run.
    """

    workdir: pathlib.Path
    scale: float
    cue: float
    processes: Processes

    def tuned(self, name: str, seed: int) -> dict[str, Any]:
        """The choice of an arm by the validation split: "steps", "rate" and "levels_rate", and what each try gave."""
        arm, levels_rate = ARMS[name], None
        if arm.at_once:
            tops = self.processes.side_by_side(lambda rate: self._top1(name, seed, SHORT, rate), RATES_AT_ONCE)
            levels_rate = max(tops, key=tops.get)
        tops = self.processes.side_by_side(lambda one: self._top1(name, seed, one, levels_rate), TRIES)
        steps, rate = max(tops, key=tops.get)
        tried = {f"{steps} steps, {rate:g}": top1 for (steps, rate), top1 in tops.items()}
        return {"steps": steps, "rate": rate, "levels_rate": levels_rate, "validation": tried}

    def joint(self, name: str, seed: int, choice: Mapping[str, Any]) -> pathlib.Path:
        """The folder of an arm's run with a choice, evaluated on the test split."""
        return self._classify(name, seed, (choice["steps"], choice["rate"]), choice["levels_rate"], "test")

    def levels(self, name: str, seed: int, rate: float | None = None) -> pathlib.Path:
        """The folder of an arm's levels, evaluated on the test split."""
        return self._finish(_levels_config(name, rate), f"{name}, levels{_told(rate)}", seed, "test", PROTOCOLS)

    def read_without_cue(self, name: str, seed: int, rate: float | None = None) -> pathlib.Path:
        """The folder of an arm's levels, evaluated again, by probes and neighbours fitted to clips without the cue."""
        config = _levels_config(name, rate) | {"init_from": {"path": str(self.levels(name, seed, rate))}}
        told = f"{name}, levels{_told(rate)}, read without cue"
        return self._finish(config, told, seed, "test", PROTOCOLS, learns=False)

    def _top1(self, name: str, seed: int, tried: tuple[int, float], levels_rate: float | None) -> float:
        folder = self._classify(name, seed, tried, levels_rate, "val")
        return json.loads((folder / "results.json").read_text())["top1"]

    def _classify(
        self, name: str, seed: int, tried: tuple[int, float], levels_rate: float | None, split: str
    ) -> pathlib.Path:
        arm, (steps, rate) = ARMS[name], tried
        config = (hcml_sprites if arm.levels else supervised_sprites).get_config().to_dict()
        method = config["method"]
        last = "joint" if arm.levels else "supervised"
        schedule = method["stages"][last] | {"steps": steps, "learning_rate": rate}
        if arm.levels:
            stages = _stages(arm, levels_rate) | {last: schedule}
            method |= {"levels": arm.levels, "progressive": not arm.at_once, "stages": stages}
            config["init_from"] = self._start(name, seed, levels_rate)
            config["training"]["first_stage"] = last
        else:
            method["stages"] = {last: schedule}
            method["motion_blocks"] = arm.blocks
        config["training"]["validation_split"] = ""  # the split is read once, at the end
        told = f"{name}, {steps} steps{_told(rate)}{_told(levels_rate)}, {split}"
        return self._finish(config, told, seed, split, ("recognition",))

    def _start(self, name: str, seed: int, levels_rate: float | None) -> dict[str, Any]:
        """What the joint stage of an arm starts from."""
        count, learnt_by = len(ARMS[name].levels), learnt_with(name)
        start = {"path": str(self.levels(learnt_by, seed, levels_rate))}
        if learnt_by == name:
            return start
        parts = ["backbone/stem"]
        for level in range(count):
            parts += [f"backbone/res{level + 2}", f"backbone/level{level}", f"heads/level{level}"]
        return start | {"stage": f"level{count - 1}", "prefixes": tuple(parts)}

    def _finish(
        self, config: dict[str, Any], name: str, seed: int, split: str, protocols: tuple[str, ...], learns: bool = True
    ) -> pathlib.Path:
        for schedule in config["method"]["stages"].values():
            schedule["steps"] = max(1, round(schedule["steps"] * self.scale))
            schedule["warmup"] *= self.scale
        config["seed"] = config["data"]["labels_seed"] = seed
        config["data"]["root"] = ""
        config["data"]["sprites"] |= {"rendered": True, "appearance_cue": self.cue if learns else 0.0}
        config["training"]["checkpoint_every"] = 1000
        config["evaluation"] |= {"split": split, "protocols": protocols, "readouts": ("Tx1x1",), "baselines": ()}
        config["evaluation"]["figure_clips"] = 0
        folder = self.workdir / f"{''.join(c if c.isalnum() else '_' for c in name)}_{seed}"
        self.processes.finish(config, folder, "train" if learns else "evaluate")
        return folder


def _levels_config(name: str, rate: float | None) -> dict[str, Any]:
    arm, config = ARMS[name], hcml_sprites.get_config().to_dict()
    config["method"] |= {"levels": arm.levels, "progressive": not arm.at_once, "stages": _stages(arm, rate)}
    return config


def _stages(arm: Arm, rate: float | None) -> dict[str, Any]:
    """The demo's schedules for the levels; at once they take as many steps as one after another."""
    demo = hcml_sprites.get_config().to_dict()["method"]["stages"]
    like = {"reconstruction": "level0", "action": "joint"}
    stages = {}
    for number, supervision in enumerate(arm.levels):
        known = demo[like.get(supervision, f"level{number}")]
        stages[f"level{number}"] = demo[f"level{number}"] | {"learning_rate": known["learning_rate"]}
    if not arm.at_once:
        return stages
    steps = sum(schedule["steps"] for schedule in stages.values())
    return {"levels": stages["level0"] | {"steps": steps, "learning_rate": rate or SHORT[1]}}


def _told(rate: float | None) -> str:
    return "" if rate is None else f", {rate:g}"


def cell(folders: list[pathlib.Path], *figure: str, unit: float = 0.01) -> str:
    """The mean over seeds with its 95% interval over videos, and every seed: in per cent, or in another unit."""
    files = [np.load(folder / "per_video.npz") for folder in folders]
    if any(".".join(figure) not in file for file in files):
        return "-"
    each = [file[".".join(figure)] / unit for file in files]
    mean = np.mean(each, axis=0)
    (interval,) = intervals([PerVideo(mean, np.arange(len(mean)))])
    if interval is None:  # it looks at no video
        return "-"
    low, high = interval
    ends = f"{low:.0f} to {high:.0f}" if unit == 0.01 else f"{low:.1f} to {high:.1f}"
    return f"{np.nanmean(mean):.1f} ({ends}; {', '.join(f'{np.nanmean(one):.1f}' for one in each)})"


def difference(first: list[pathlib.Path], second: list[pathlib.Path], *figure: str) -> str:
    """How much more the runs of one arm have, the mean over seeds with its 95% interval over the same videos."""
    name = ".".join(figure)
    means = (np.mean([np.load(folder / "per_video.npz")[name] for folder in arm], axis=0) for arm in (first, second))
    more = np.subtract(*means)
    ((low, high),) = intervals([PerVideo(more, np.arange(len(more)))])
    return f"{100 * more.mean():.1f} ({100 * low:.1f} to {100 * high:.1f})"


def tables(joint: Found, levels: Found, without_cue: Found) -> str:
    """The ablations as Markdown, in per cent, of those arms that were run.

    Args:
      joint: arm -> the folders of its classifiers, one a seed.
      levels: arm -> those of its levels.
      without_cue: arm -> those of its levels, read without the cue.
    """
    lines = []
    for title, names in TABLES.items():
        if not set(names) & set(joint):
            continue
        lines += ["", f"| {title} | top-1 |", "|---|---|"]
        lines += [f"| {name} | {cell(joint[name], 'top1')} |" for name in names if name in joint]
        if len(names) == 2 and set(names) <= set(joint):
            lines.append(f"| the first less the second | {difference(*(joint[name] for name in names), 'top1')} |")
    for title, found in (("Table 1", levels), ("read without cue", without_cue)):
        shown = {kind: found[name] for kind, name in SUPERVISIONS.items() if name in found}
        lines += _of_levels(title, shown) if shown else []
    return "\n".join(lines[1:])


def _of_levels(table: str, shown: Found) -> list[str]:
    """Lines of a table of those supervisions of the levels that were run."""
    lines = []
    for title, figure in (
        ("linear probe, mean", ("linear", "level{}")),
        ("linear probe, time kept", ("readouts", "level{}/Tx1x1", "linear")),
        ("kNN, time kept", ("readouts", "level{}/Tx1x1", "knn")),
    ):
        lines += ["", f"| {table}: {title} | {' | '.join(shown)} |", "|---" * (len(shown) + 1) + "|"]
        for level in range(3):
            cells = (
                "-" if (level, kind) == (0, "contrastive") else cell(folders, *(name.format(level) for name in figure))
                for kind, folders in shown.items()
            )
            lines.append(f"| level {level} | {' | '.join(cells)} |")
    lines += ["", f"| {table}: efficacy | {' | '.join(shown)} |", "|---" * (len(shown) + 1) + "|"]
    for level in range(3):
        lines.append(f"| level {level} | {' | '.join(_efficacy(folders, level) for folders in shown.values())} |")
    return lines


def _efficacy(folders: list[pathlib.Path], level: int) -> str:
    found = [json.loads((folder / "results.json").read_text())["efficacy"][f"level{level}"] for folder in folders]
    return "no gap" if None in found else f"{statistics.mean(found):.1f} ({', '.join(f'{x:.1f}' for x in found)})"


class Ablation:
    """Arms that run side by side, and the tables of those that are finished."""

    def __init__(self, runs: Runs, seeds: Sequence[int], with_joint: bool, chosen: Mapping[str, Any]):
        """`with_joint`: whether classifiers are learnt, too; `chosen`: the choices of arms that are not tuned."""
        self._runs, self._seeds, self._with_joint, self._chosen = runs, seeds, with_joint, chosen
        self._found, self._choices, self._writes = {"joint": {}, "levels": {}, "without_cue": {}}, {}, threading.Lock()

    def run(self, names: Sequence[str]) -> None:
        """Runs arms; an error of one comes when the others are finished."""
        alone = [learnt_with(name) for name in names if ARMS[name].levels and not ARMS[name].at_once]
        first = dict.fromkeys((name, seed) for seed in self._seeds for name in alone)
        # Levels take the longest, and others wait for them.
        tasks = [functools.partial(self._runs.levels, *one) for one in first]
        tasks += [functools.partial(self._arm, name) for name in names]
        self._runs.processes.side_by_side(lambda task: task(), tasks)

    def _arm(self, name: str) -> None:
        runs, found, choice = self._runs, {}, {}
        if ARMS[name].joint and self._with_joint:
            choice = self._chosen.get(name) or runs.tuned(name, self._seeds[0])
            found["joint"] = self._each_seed(lambda seed: runs.joint(name, seed, choice))
        if name in SUPERVISIONS.values():
            rate = choice.get("levels_rate")
            found["levels"] = self._each_seed(lambda seed: runs.levels(name, seed, rate))
            if runs.cue:
                found["without_cue"] = self._each_seed(lambda seed: runs.read_without_cue(name, seed, rate))
        with self._writes:
            self._keep(name, found, choice)

    def _each_seed(self, function: Callable[[int], pathlib.Path]) -> list[pathlib.Path]:
        return list(self._runs.processes.side_by_side(function, self._seeds).values())

    def _keep(self, name: str, found: Found, choice: Mapping[str, Any]) -> None:
        for kind, folders in found.items():
            self._found[kind][name] = folders
        if choice:
            self._choices[name] = choice
        text = tables(**self._found)
        (self._runs.workdir / "choices.json").write_text(json.dumps(self._choices, indent=1))
        (self._runs.workdir / "ablation.md").write_text(text + "\n")
        print(text, flush=True)


def read_choices(path: pathlib.Path) -> dict[str, Any]:
    """Arm -> its choice.

    Raises:
      UserError: an arm is unknown, or its choice lacks a field.
    """
    choices = json.loads(path.read_text())
    for name, choice in choices.items():
        if name not in ARMS:
            raise UserError(f"{path}: no arm {name!r}. {nearest(name, ARMS)}")
        if missing := {"steps", "rate", "levels_rate"} - choice.keys():
            raise UserError(f"{path}: {name} lacks {', '.join(sorted(missing))}")
    return choices


def main() -> None:
    """Runs what has not been run, and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workdir", type=pathlib.Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS))
    parser.add_argument("--choices", type=pathlib.Path, help="an earlier choices.json, in place of tuning")
    parser.add_argument("--levels-alone", action="store_true", help="learn no classifiers")
    parser.add_argument("--appearance-cue", type=float, default=0.0, help="data.sprites.appearance_cue")
    parser.add_argument("--processes", type=int, default=1, help="runs at a time")
    parser.add_argument("--scale", type=float, default=1.0, help="of all steps")
    arguments = parser.parse_args()
    chosen = read_choices(arguments.choices) if arguments.choices else {}
    processes = Processes(arguments.processes)
    runs = Runs(arguments.workdir, arguments.scale, arguments.appearance_cue, processes)
    Ablation(runs, arguments.seeds, not arguments.levels_alone, chosen).run(arguments.arms)


if __name__ == "__main__":
    call(main)
