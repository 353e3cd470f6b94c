"""MSCL's ablations on Motion Sprites: `python benchmarks/mscl.py --workdir runs/mscl`.

Its Table 1 (losses, one after another, and rotated flow), Table 2 (flow encoder in 2-D or 3-D, the pyramid or one
stage), Table 3 (where clips start, in longer videos), Table 4 (range of the rotation); which flow gives what; and the
levels of HCML (2,500 steps of 16 clips) and supervision by the labels of ever new clips (1,000 steps), beside MSCL's
1,000 steps of two clips of 16 videos. Every arm is tuned alike: its rates, all times one of
three factors, by neighbours on the validation split, at the first seed; then all seeds are reported on the test split.
The learnt features are read by neighbours, by a linear probe and by retrieval. Every run has its own folder and
process, and resumes where it stopped; `benchmarks/ablation.py` says how several share a GPU.
"""

import argparse
import dataclasses
import json
import math
import os
import pathlib
import subprocess
import sys
from collections.abc import Iterable, Mapping
from types import ModuleType
from typing import Any

from ablation import cell
from runs import Processes, call

from configs import hcml_sprites, mscl_sprites, supervised_sprites
from data_pipelines.config import SpritesConfig
from data_pipelines.write_sprites import write_sprites
from hcml_jax.config import UserError

FACTORS = (1 / 3, 1.0, 3.0)  # of an arm's own rates
NO_TERMS = {"flow_weight": 0.0, "cross_weight": 0.0, "local_weight": 0.0}
# Videos with 16 frames to spare, in which a clip may start where motion changes, or not.
LONGER = {"rendered": False, "frames": 32, "zoom": (1.025, 1.035), "closing_speed": (0.7, 1.05)}
FLOW_3D = {"name": "resnet3d_10", "width": 8, "stem_pool": False, "temporal_strides": (1, 1, 1, 1)}


@dataclasses.dataclass(frozen=True)
class Arm:
    """What is trained, and read.

    Attributes:
      fields: of the method, that differ from its config's.
      source: the config that the method is of.
      data: fields of the data, that differ.
      starts: of clips of longer videos: "any", or those where motion changes, by this weighting; "": videos are short.
      feature: what is read.
    """

    fields: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    source: ModuleType = mscl_sprites
    data: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    starts: str = ""
    feature: str = "backbone"


def stages_of(source: ModuleType, *names: str) -> dict[str, Any]:
    """The schedules of some stages of a config."""
    stages = source.get_config().to_dict()["method"]["stages"]
    return {name: stages[name] for name in names}


LEVELS = stages_of(hcml_sprites, "level0", "level1", "level2")
LABELS = {"supervised": stages_of(supervised_sprites, "supervised")["supervised"] | {"steps": 1000}}
ALL = "MSCL: and rotated flow"
ARMS: dict[str, Arm] = {
    "MoCo: L_RGB": Arm(NO_TERMS),
    "and L_Flow": Arm(NO_TERMS | {"flow_weight": 1.0}),
    "and L_RF": Arm({"local_weight": 0.0}),
    "L_LMC without L_RF": Arm({"cross_weight": 0.0, "rotation": None}),
    "and L_LMC": Arm({"rotation": None}),
    ALL: Arm(),
    "flow in 3-D": Arm({"flow_backbone": FLOW_3D}),
    "one stage, no pyramid": Arm({"local_stages": ("res3",)}),
    "starts: any": Arm(starts="any"),
    "starts: colours change": Arm(starts="none"),
    "starts: colours of the foreground change": Arm(starts="softmax"),
    "rotation pi/2 to 3 pi/2": Arm({"rotation": (math.pi / 2, 3 * math.pi / 2)}),
    "rotation pi/6 to 11 pi/6": Arm({"rotation": (math.pi / 6, 11 * math.pi / 6)}),
    "flow by DIS": Arm(data={"flow": "dis"}),
    "flow by level 0 of HCML": Arm(data={"flow": "hcml:sprites"}),
    "HCML, level 2": Arm({"stages": LEVELS}, hcml_sprites, feature="level2"),
    "supervised by all labels": Arm({"stages": LABELS}, supervised_sprites, {"labels_per_class": 0}),
}
TABLES = {
    "Table 1": ("MoCo: L_RGB", "and L_Flow", "and L_RF", "L_LMC without L_RF", "and L_LMC", ALL),
    "Table 2": ("flow in 3-D", "one stage, no pyramid", ALL),
    "Table 3": ("starts: any", "starts: colours change", "starts: colours of the foreground change"),
    "Table 4": ("and L_LMC", "rotation pi/2 to 3 pi/2", ALL, "rotation pi/6 to 11 pi/6"),
    "which flow": (ALL, "flow by DIS", "flow by level 0 of HCML"),
    "beside": (ALL, "HCML, level 2", "supervised by all labels"),
}
FIGURES = ("kNN", "linear", "R@1")


def figures_of(feature: str) -> tuple[tuple[str, ...], ...]:
    """Where results have the figures of a feature."""
    return ("knn", feature), ("linear", feature), ("retrieval", feature, "1")


class Arms:
    """The runs of a folder, made when they are first asked for."""

    def __init__(self, workdir: pathlib.Path, processes: Processes, scale: float):
        """`processes`: in which they run; `scale`: of all steps."""
        self._workdir, self._processes, self._scale = workdir, processes, scale

    def prepare(self, names: Iterable[str]) -> None:
        """Writes the longer videos and their flow, where an arm needs them."""
        weightings = sorted({_weighting(ARMS[name]) for name in names if ARMS[name].starts})
        if weightings:
            sprites = mscl_sprites.get_config().to_dict()["data"]["sprites"] | LONGER
            write_sprites(SpritesConfig(**sprites), self._workdir / "videos")
        for weighting in weightings:
            flags = ["--provider", "truth", "--stride", "1", "--short-side", "0", "--weighting", weighting]
            places = [str(self._workdir / "videos"), "--out", str(self._workdir / f"flow_{weighting}")]
            command = [sys.executable, "-m", "hcml_jax.compute_flow", *places, "--scale", "12", *flags]
            if subprocess.run(command, check=False).returncode:
                raise UserError(f"{' '.join(command)} failed")

    def tried(self, name: str, seed: int) -> dict[float, float]:
        """Factor of the rates -> what neighbours give on the validation split."""
        return self._processes.side_by_side(lambda factor: self._neighbours(name, seed, factor), FACTORS)

    def run(self, name: str, seed: int, factor: float, split: str = "test") -> pathlib.Path:
        """The folder of a run."""
        plain = "".join(c if c.isalnum() else "_" for c in f"{name} {factor:.3g} {split}")
        folder = self._workdir / f"{plain}_{seed}"
        self._processes.finish(self.config(name, seed, factor, split), folder)
        return folder

    def config(self, name: str, seed: int, factor: float, split: str) -> dict[str, Any]:
        """An arm's run, read on a split."""
        arm, config = ARMS[name], mscl_sprites.get_config().to_dict()
        config["method"] = arm.source.get_config().to_dict()["method"] | arm.fields
        stages = config["method"]["stages"].items()
        config["method"]["stages"] = {stage: self._scaled(schedule, factor) for stage, schedule in stages}
        config["seed"] = config["data"]["labels_seed"] = seed
        config["data"] |= arm.data
        if arm.starts:
            folders = {"root": str(self._workdir / "videos"), "flow": str(self._workdir / f"flow_{_weighting(arm)}")}
            sprites = config["data"]["sprites"] | LONGER
            config["data"] |= {**folders, "sprites": sprites, "moving": arm.starts != "any"}
        config["training"] |= {"validation_split": "", "checkpoint_every": 1000}
        config["evaluation"] |= {
            "split": split,
            "protocols": ("neighbours", "linear", "retrieval") if split == "test" else ("neighbours",),
            "readouts": (),
            "baselines": (),
            "figure_clips": 0,
        }
        return config

    def _scaled(self, schedule: Mapping[str, Any], factor: float) -> dict[str, Any]:
        """A schedule at `factor` times its rate."""
        steps, warmup = max(2, round(schedule["steps"] * self._scale)), schedule["warmup"] * self._scale
        return {**schedule, "learning_rate": schedule["learning_rate"] * factor, "steps": steps, "warmup": warmup}

    def _neighbours(self, name: str, seed: int, factor: float) -> float:
        results = json.loads((self.run(name, seed, factor, "val") / "results.json").read_text())
        return results["knn"][ARMS[name].feature]


def _weighting(arm: Arm) -> str:
    """By which the change of motion in its videos is measured."""
    return "none" if arm.starts == "any" else arm.starts


def tables(folders: Mapping[str, list[pathlib.Path]]) -> str:
    """The ablations as Markdown, in per cent, of those arms that were run."""
    lines = []
    for title, names in TABLES.items():
        lines += ["", f"| {title} | {' | '.join(FIGURES)} |", "|---" * (len(FIGURES) + 1) + "|"]
        for name in names:
            if name in folders:
                cells = (cell(folders[name], *figure) for figure in figures_of(ARMS[name].feature))
                lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines[1:])


def main() -> None:
    """Runs what has not been run, and prints the tables."""
    # This process renders the longer videos; the runs need the GPU's memory.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workdir", type=pathlib.Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS))
    parser.add_argument("--untuned", action="store_true", help="at the configs' own rates")
    parser.add_argument("--processes", type=int, default=1, help="runs at a time")
    parser.add_argument("--scale", type=float, default=1.0, help="of all steps")
    arguments = parser.parse_args()
    processes = Processes(arguments.processes)
    arms = Arms(arguments.workdir, processes, arguments.scale)
    arms.prepare(arguments.arms)

    def finished(name: str) -> tuple[dict[float, float], list[pathlib.Path]]:
        tried = {1.0: math.nan} if arguments.untuned else arms.tried(name, arguments.seeds[0])
        factor = max(tried, key=tried.get)
        return tried, list(processes.side_by_side(lambda seed: arms.run(name, seed, factor), arguments.seeds).values())

    found = processes.side_by_side(finished, arguments.arms)
    if arguments.untuned:
        (arguments.workdir / "choices.json").unlink(missing_ok=True)
    else:
        choices = {name: {f"{factor:.3g}": knn for factor, knn in tried.items()} for name, (tried, _) in found.items()}
        (arguments.workdir / "choices.json").write_text(json.dumps(choices, indent=1))
    text = tables({name: folders for name, (_, folders) in found.items()})
    (arguments.workdir / "mscl.md").write_text(text + "\n")
    print(text, flush=True)


if __name__ == "__main__":
    call(main)
