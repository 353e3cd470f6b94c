"""MSCL's ablations on Motion Sprites with their true flow: `python benchmarks/mscl.py --workdir runs/mscl`.

Its Table 1 (losses, one after another, and rotated flow), Table 2 (flow encoder in 2-D or 3-D, the pyramid or one
stage) and Table 4 (range of the rotation). Every arm's rate is chosen among the same three by neighbours on the
validation split, at the first seed; then all seeds are reported on the test split. The learnt embedding is read by
neighbours, by a linear probe and by retrieval. Every run has its own folder and process, and resumes where it stopped;
`benchmarks/ablation.py` says how several share a GPU.
"""

import argparse
import json
import math
import pathlib
from collections.abc import Mapping
from typing import Any

from ablation import cell
from runs import Processes, call

from configs import mscl_sprites

RATES = (1e-3, 3e-3, 1e-2)
NO_TERMS = {"flow_weight": 0.0, "cross_weight": 0.0, "local_weight": 0.0}
FLOW_3D = {"name": "resnet3d_10", "width": 8, "stem_pool": False, "temporal_strides": (1, 1, 1, 1)}
ALL = "MSCL: and rotated flow"
# Arm -> the fields of the method that differ from the config's.
ARMS: dict[str, dict[str, Any]] = {
    "MoCo: L_RGB": NO_TERMS,
    "and L_Flow": NO_TERMS | {"flow_weight": 1.0},
    "and L_RF": {"local_weight": 0.0},
    "L_LMC without L_RF": {"cross_weight": 0.0, "rotation": None},
    "and L_LMC": {"rotation": None},
    ALL: {},
    "flow in 3-D": {"flow_backbone": FLOW_3D},
    "one stage, no pyramid": {"local_stages": ("res3",)},
    "rotation pi/2 to 3 pi/2": {"rotation": (math.pi / 2, 3 * math.pi / 2)},
    "rotation pi/6 to 11 pi/6": {"rotation": (math.pi / 6, 11 * math.pi / 6)},
}
TABLES = {
    "Table 1": ("MoCo: L_RGB", "and L_Flow", "and L_RF", "L_LMC without L_RF", "and L_LMC", ALL),
    "Table 2": ("flow in 3-D", "one stage, no pyramid", ALL),
    "Table 4": ("and L_LMC", "rotation pi/2 to 3 pi/2", ALL, "rotation pi/6 to 11 pi/6"),
}
FIGURES = {"kNN": ("knn", "backbone"), "linear": ("linear", "backbone"), "R@1": ("retrieval", "backbone", "1")}


def config_of(name: str, seed: int, rate: float, split: str, scale: float) -> dict[str, Any]:
    """An arm's run, read on a split; `scale` is of its steps."""
    config = mscl_sprites.get_config().to_dict()
    config["seed"] = config["data"]["labels_seed"] = seed
    config["method"] |= ARMS[name]
    schedule = config["method"]["stages"]["contrast"]
    schedule |= {"learning_rate": rate, "steps": max(2, round(schedule["steps"] * scale))}
    schedule["warmup"] *= scale
    config["training"] |= {"validation_split": "", "checkpoint_every": 1000}
    config["evaluation"] |= {
        "split": split,
        "protocols": ("neighbours", "linear", "retrieval") if split == "test" else ("neighbours",),
        "readouts": (),
        "baselines": (),
        "figure_clips": 0,
    }
    return config


class Arms:
    """The runs of a folder, made when they are first asked for."""

    def __init__(self, workdir: pathlib.Path, processes: Processes, scale: float):
        """`processes`: in which they run; `scale`: of all steps."""
        self._workdir, self._processes, self._scale = workdir, processes, scale

    def chosen(self, name: str, seed: int) -> dict[float, float]:
        """Rate -> what neighbours give on the validation split."""
        return self._processes.side_by_side(lambda rate: self._neighbours(name, seed, rate), RATES)

    def run(self, name: str, seed: int, rate: float, split: str = "test") -> pathlib.Path:
        """The folder of a run."""
        plain = "".join(c if c.isalnum() else "_" for c in f"{name} {rate:g} {split}")
        folder = self._workdir / f"{plain}_{seed}"
        self._processes.finish(config_of(name, seed, rate, split, self._scale), folder)
        return folder

    def _neighbours(self, name: str, seed: int, rate: float) -> float:
        return json.loads((self.run(name, seed, rate, "val") / "results.json").read_text())["knn"]["backbone"]


def tables(folders: Mapping[str, list[pathlib.Path]]) -> str:
    """The ablations as Markdown, in per cent, of those arms that were run."""
    lines = []
    for title, names in TABLES.items():
        lines += ["", f"| {title} | {' | '.join(FIGURES)} |", "|---" * (len(FIGURES) + 1) + "|"]
        for name in names:
            if name in folders:
                cells = (cell(folders[name], *figure) for figure in FIGURES.values())
                lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines[1:])


def main() -> None:
    """Runs what has not been run, and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workdir", type=pathlib.Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS))
    parser.add_argument("--processes", type=int, default=1, help="runs at a time")
    parser.add_argument("--scale", type=float, default=1.0, help="of all steps")
    arguments = parser.parse_args()
    processes = Processes(arguments.processes)
    arms = Arms(arguments.workdir, processes, arguments.scale)

    def finished(name: str) -> tuple[dict[float, float], list[pathlib.Path]]:
        tried = arms.chosen(name, arguments.seeds[0])
        rate = max(tried, key=tried.get)
        return tried, list(processes.side_by_side(lambda seed: arms.run(name, seed, rate), arguments.seeds).values())

    found = processes.side_by_side(finished, arguments.arms)
    choices = {name: {f"{rate:g}": knn for rate, knn in tried.items()} for name, (tried, _) in found.items()}
    (arguments.workdir / "choices.json").write_text(json.dumps(choices, indent=1))
    text = tables({name: folders for name, (_, folders) in found.items()})
    (arguments.workdir / "mscl.md").write_text(text + "\n")
    print(text, flush=True)


if __name__ == "__main__":
    call(main)
