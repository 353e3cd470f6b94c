"""Ablation of a level's future prediction: `python benchmarks/pretext.py --workdir runs/pretext`.

Level 0 of the demo is learnt once per seed. Then level 1 is learnt on top of it, and level 2 on top of the demo's level
1, with one change to the demo at a time, in 600 steps. Each row is the mean over seeds, on the validation split: the
share of predictions that find the right time among those of their place, with its chance level; and scores of the
level's features. `--whole` learns the demo's levels 1 and 2 and its joint stage, in the demo's steps, with the change
in all of them: what a change is worth to the network. Clips are rendered as they are read, new ones in each epoch.
Temporal jitter is not tried, because in 20 frames these motions leave the picture. Every run has its own folder and
process, and resumes where it stopped; `benchmarks/ablation.py` says how several share a GPU.
"""

import argparse
import itertools
import pathlib
import statistics
from collections.abc import Mapping
from typing import Any

from runs import Processes, call

from configs import hcml_sprites
from hcml_jax.evaluation.compare import read_results
from hcml_jax.training.metrics import read_records

STEPS = 600
PROTOCOLS = ("neighbours", "linear")
DEMO = "the demo"
LETTER = {"self_paired": True, "motion_share": 0.0, "temporal_weight": 0.0, "centre_targets": False}
# Row -> part of the config -> its fields that differ from the demo's.
TRIALS: dict[str, dict[str, dict[str, Any]]] = {
    DEMO: {},
    "the paper's letter": {"method": LETTER},
    "the self-paired frame predicted": {"method": {"self_paired": True}},
    "positions alike": {"method": {"motion_share": 0.0}},
    "all negatives": {"method": {"temporal_weight": 0.0}},
    "half in time": {"method": {"temporal_weight": 0.5}},
    "four fifths in time": {"method": {"temporal_weight": 0.8}},
    "targets not centred": {"method": {"centre_targets": False}},
    "temperature 0.03": {"method": {"temperature": 0.03}},
    "temperature 0.15": {"method": {"temperature": 0.15}},
    "one step ahead": {"method": {"prediction_steps": 1}},
    "five steps ahead": {"method": {"prediction_steps": 5}},
    "36 positions": {"method": {"positions": 36}},
    "batches of 16": {"training": {"batch_size": 16}},
    "batches of 32": {"training": {"batch_size": 32}},
    "jitter in space": {"data": {"jitter": True, "short_side": (48, 60)}},
    "twice the steps": {"stage": {"steps": 2 * STEPS}},
}


def config_of(seed: int, levels: int, changes: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The demo's levels without its joint stage."""
    config = whole_config(seed, changes)
    names = [f"level{level}" for level in range(levels)]
    stages = {name: config["method"]["stages"][name] for name in names}
    if levels > 1:
        stages[names[-1]] |= {"steps": STEPS} | dict(changes.get("stage", {}))
    config["method"] |= {"levels": config["method"]["levels"][:levels], "stages": stages}
    config["evaluation"]["protocols"] = PROTOCOLS if levels > 1 else ()
    return config


def whole_config(seed: int, changes: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The demo, read on the validation split."""
    config = hcml_sprites.get_config().to_dict()
    config["seed"] = seed
    config["data"] |= {"root": ""} | dict(changes.get("data", {}))
    config["data"]["sprites"]["rendered"] = True
    config["method"] |= changes.get("method", {})
    config["training"] |= {"validate_on_reported": True, "checkpoint_every": 1000} | dict(changes.get("training", {}))
    config["evaluation"] |= {
        "split": "val",
        "protocols": (*PROTOCOLS, "recognition"),
        "readouts": ("Tx1x1", "3x3"),
        "baselines": (),
        "neighbours": (10,),
        "figure_clips": 0,
    }
    return config


class Trials:
    """The runs of a folder, made when they are first asked for."""

    def __init__(self, workdir: pathlib.Path, processes: Processes):
        """`processes`: in which they run."""
        self._workdir, self._processes = workdir, processes

    def run(self, level: int, name: str, seed: int) -> pathlib.Path:
        """The folder of a level that is learnt with a change, on what the demo learns below it."""
        config = config_of(seed, level + 1, TRIALS[name])
        if level:
            self._go_on(config, level, self.run(level - 1, DEMO, seed))
        return self._finish(config, f"level{level}", name, seed)

    def whole(self, name: str, seed: int) -> pathlib.Path:
        """The folder of the demo with a change, from level 1 to the joint stage, on the demo's level 0."""
        config = whole_config(seed, TRIALS[name])
        config["data"]["labels_seed"] = seed
        self._go_on(config, 1, self.run(0, DEMO, seed))
        return self._finish(config, "whole", name, seed)

    def _go_on(self, config: dict[str, Any], level: int, below: pathlib.Path) -> None:
        config["init_from"] = {"path": str(below)}
        config["training"]["first_stage"] = f"level{level}"

    def _finish(self, config: dict[str, Any], kind: str, name: str, seed: int) -> pathlib.Path:
        folder = self._workdir / f"{kind}-{''.join(c if c.isalnum() else '_' for c in name)}-{seed}"
        self._processes.finish(config, folder)
        return folder


def figures(folder: pathlib.Path, level: int) -> dict[str, float]:
    """A level's final metrics on its task, and scores of its features, and of the classifier if there is one."""
    records = (record for record in read_records(folder) if record["split"] == "validation")
    last = [record for record in records if record["stage"] == f"level{level}"][-1]
    results = read_results(folder)
    task, where = f"contrastive/level{level}", f"level{level}"
    return {
        "right time": last[f"{task}/right_time"],
        "chance": last[f"{task}/right_time_chance"],
        "loss": last[task],
        "copying": last[f"{task}/copying"],
        "without motion": last[f"{task}/without_motion"],
        "kNN": results["knn"][where],
        "linear": results["linear"][where],
        "time kept": results["readouts"][f"{where}/Tx1x1"]["linear"],
        "3x3": results["readouts"][f"{where}/3x3"]["linear"],
    } | ({"top-1": results["top1"]} if "top1" in results else {})


def table(rows: Mapping[str, list[dict[str, float]]]) -> str:
    """The rows as Markdown; each cell is the mean over seeds."""
    heads = list(dict.fromkeys(head for found in rows.values() for figures in found for head in figures))
    lines = ["| | " + " | ".join(heads) + " |", "|---" * (len(heads) + 1) + "|"]
    for name, found in rows.items():
        known = {head: [figures[head] for figures in found if head in figures] for head in heads}
        cells = [f"{statistics.mean(values):.3f}" if values else "" for values in known.values()]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Runs what has not been run, and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workdir", type=pathlib.Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--trials", nargs="+", choices=list(TRIALS), default=list(TRIALS))
    parser.add_argument("--levels", type=int, nargs="+", choices=(1, 2), default=[1, 2])
    parser.add_argument("--whole", action="store_true", help="the demo from level 1 to its end, for each trial")
    parser.add_argument("--processes", type=int, default=1, help="runs at a time")
    arguments = parser.parse_args()
    processes = Processes(arguments.processes)
    trials = Trials(arguments.workdir, processes)
    asked = list(itertools.product(arguments.levels, arguments.trials, arguments.seeds))
    run = (lambda level, name, seed: trials.whole(name, seed)) if arguments.whole else trials.run
    folders = processes.side_by_side(lambda one: run(*one), asked)
    for level in arguments.levels:
        rows = {
            name: [figures(folders[level, name, seed], level) for seed in arguments.seeds] for name in arguments.trials
        }
        text = f"level {level}\n\n{table(rows)}\n"
        (arguments.workdir / f"{'whole-' if arguments.whole else ''}level{level}.md").write_text(text)
        print(text, flush=True)


if __name__ == "__main__":
    call(main)
