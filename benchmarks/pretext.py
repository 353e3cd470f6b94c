"""What makes a level predict the future: `python benchmarks/pretext.py --workdir runs/pretext`.

Level 0 of the demo is learnt once a seed. Then level 1 learns on top of it, and level 2 on top of the level 1 that is
kept, with one field changed at a time. Each row is the mean over seeds, on the validation split: the share of
predictions that find the right time among those of their place, beside what guessing would give; and what the level's
features are good for. Every run has its own folder and resumes where it stopped.
"""

import argparse
import pathlib
import statistics
from collections.abc import Mapping
from typing import Any

from runs import call, finish

from configs import hcml_sprites
from hcml_jax.evaluation.compare import read_results
from hcml_jax.experiment import run
from hcml_jax.training.metrics import read_records

LETTER = {"self_paired": True, "motion_share": 0.0, "temporal_weight": 0.0, "centre_targets": False}
MOTION = {**LETTER, "self_paired": False, "motion_share": 0.8}
CENTRED = {**MOTION, "centre_targets": True}
# Row -> fields of the method, and of the level's stage.
TRIALS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "the paper's letter": (LETTER, {}),
    "the self-paired frame left out": ({**LETTER, "self_paired": False}, {}),
    "that, positions by motion": (MOTION, {}),
    "that, temperature 0.15": ({**MOTION, "temperature": 0.15}, {}),
    "that, 36 positions": ({**MOTION, "positions": 36}, {}),
    "that, targets centred": (CENTRED, {}),
    "centred, a fifth in time": ({**CENTRED, "temporal_weight": 0.2}, {}),
    "centred, half in time": ({**CENTRED, "temporal_weight": 0.5}, {}),
    "centred, all in time": ({**CENTRED, "temporal_weight": 1.0}, {}),
    "half in time, not centred": ({**MOTION, "temporal_weight": 0.5}, {}),
    "all in time, not centred": ({**MOTION, "temporal_weight": 1.0}, {}),
    "half in time, not centred, twice the steps": ({**MOTION, "temporal_weight": 0.5}, {"steps": 1200}),
    "all in time, not centred, twice the steps": ({**MOTION, "temporal_weight": 1.0}, {"steps": 1200}),
    "centred, half in time, twice the steps": ({**CENTRED, "temporal_weight": 0.5}, {"steps": 1200}),
    "centred, all in time, twice the steps": ({**CENTRED, "temporal_weight": 1.0}, {"steps": 1200}),
}


def config_of(seed: int, levels: int, method: Mapping[str, Any], schedule: Mapping[str, Any]) -> dict[str, Any]:
    """The demo's levels without its joint stage, read on the validation split."""
    config = hcml_sprites.get_config().to_dict()
    names = [f"level{level}" for level in range(levels)]
    stages = {name: config["method"]["stages"][name] for name in names}
    stages[names[-1]] |= schedule
    config["seed"] = seed
    config["method"] |= {"levels": config["method"]["levels"][:levels], "stages": stages} | dict(method)
    config["training"]["validate_on_reported"] = True
    config["evaluation"] |= {
        "split": "val",
        "protocols": (),
        "readouts": ("Tx1x1", "3x3"),
        "baselines": (),
        "neighbours": (10,),
        "figure_clips": 0,
    }
    return config


def trial(
    workdir: pathlib.Path, seed: int, level: int, name: str, below: pathlib.Path, features: bool
) -> dict[str, float]:
    """The figures of one run: of its task and, with `features`, of what its features are good for."""
    config = config_of(seed, level + 1, *TRIALS[name])
    config["init_from"] = {"path": str(below)}
    config["training"]["first_stage"] = f"level{level}"
    folder = workdir / f"level{level}-{_slug(name)}-{seed}"
    results = finish(config, folder)
    task, where = f"contrastive/level{level}", f"level{level}"
    last = [record for record in read_records(folder) if record["split"] == "validation"][-1]
    figures = {
        "right time": last[f"{task}/right_time"],
        "chance": last[f"{task}/right_time_chance"],
        "loss": last[task],
        "copying": last[f"{task}/copying"],
        "without motion": last[f"{task}/without_motion"],
    }
    if features and "linear" not in results:
        config["evaluation"]["protocols"] = ("neighbours", "linear")
        run(config, str(folder), "evaluate")
        results = read_results(folder)
    if "linear" in results:
        readouts = results["readouts"]
        figures |= {"kNN": results["knn"][where], "linear": results["linear"][where]}
        figures |= {f"linear, {grid}": readouts[f"{where}/{grid}"]["linear"] for grid in ("Tx1x1", "3x3")}
    return figures


def _slug(name: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in name)


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
    parser.add_argument("--keep", choices=list(TRIALS), default="half in time, not centred", help="below level 2")
    parser.add_argument("--no-features", action="store_true", help="read how levels solve their task, no more")
    arguments = parser.parse_args()
    rows: dict[int, dict[str, list]] = {level: {} for level in arguments.levels}
    for seed in arguments.seeds:
        level0 = arguments.workdir / f"level0-{seed}"
        finish(config_of(seed, 1, {}, {}), level0)
        below = {1: level0, 2: arguments.workdir / f"level1-{_slug(arguments.keep)}-{seed}"}
        for level in arguments.levels:
            for name in arguments.trials:
                found = trial(arguments.workdir, seed, level, name, below[level], not arguments.no_features)
                rows[level].setdefault(name, []).append(found)
                print(f"level {level}, seed {seed}\n{table(rows[level])}", flush=True)


if __name__ == "__main__":
    call(main)
