"""Which method does what: all of them on Motion Sprites, and on UT-Interaction, by the same protocols (`make table`).

`python benchmarks/methods.py --workdir runs/table [--data DIR]`. On sprites every method learns from the same clips, 16
a step, in as many steps as its config has; `benchmarks/arms.py` says how it is tuned and evaluated: here by a linear
probe of features learnt without labels. The cost of training includes all stages, also the one that learns from labels;
times are with the other --processes running. With --data, the folder of UT-Interaction's segmented clips,
`benchmarks/ut_interaction.py` runs for each method too, at its config's own rates. What is finished is not run again.
"""

import json
import pathlib
import statistics
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import arms
from arms import Ablation, Arm, Figure
from runs import call
from ut_interaction import table_of

from configs import cgm_sprites, fima_sprites, hcml_sprites, moco_sprites, mscl_sprites, supervised_sprites
from hcml_jax.config import UserError
from hcml_jax.evaluation.subject import REPRESENTATION

ARMS = {
    "HCML": Arm(hcml_sprites, feature="level2"),
    "MSCL": Arm(mscl_sprites),
    "MoCo": Arm(moco_sprites),
    "FIMA": Arm(fima_sprites),
    "CGM-Net": Arm(cgm_sprites),
    "the labels alone": Arm(supervised_sprites),
}
FIGURES = {
    "linear": Figure("linear", ("linear", "{feature}")),
    "linear, time kept": Figure("linear", ("readouts", "{feature}/Tx1x1", "linear")),
    "kNN": Figure("neighbours", ("knn", "{feature}")),
    "kNN, time kept": Figure("neighbours", ("readouts", "{feature}/Tx1x1", "knn")),
    "R@1": Figure("retrieval", ("retrieval", "{feature}", "1")),
    "linear, 25 labels a class": Figure("linear", ("few_labels", "linear", "{feature}")),
    "top-1, 25 labels a class": Figure("recognition", ("top1",)),
    "linear, reversed": Figure("controls", ("controls", "reversed", "linear", "{feature}")),
    "shuffled": Figure("controls", ("controls", "shuffled", "linear", "{feature}")),
    "one frame": Figure("controls", ("controls", "single_frame", "linear", "{feature}")),
}
TABLES = {"Motion Sprites": tuple(ARMS)}
ABLATION = Ablation("methods", mscl_sprites, ARMS, TABLES, FIGURES, readouts=("Tx1x1",), protocols=("cost",))
REAL = {"HCML": "hcml", "MSCL": "mscl", "MoCo": "moco", "FIMA": "fima", "CGM-Net": "cgm_net"}
READ = {  # name of a column -> kind, read-out and control
    **{"kNN": ("knn", "", ""), "time kept": ("knn", "Tx1x1", ""), "3x3": ("knn", "3x3", "")},
    **{
        "linear": ("linear", "", ""),
        "linear, time kept": ("linear", "Tx1x1", ""),
        "linear, 3x3": ("linear", "3x3", ""),
    },
    **{f"that, {name}": ("linear", "3x3", name) for name in ("reversed", "shuffled", "single_frame")},
}


def cost_of(folders: Sequence[pathlib.Path]) -> list[str]:
    """Steps, clips seen and minutes of training, the median of some runs, and parameters and multiply-adds."""
    steps, clips, minutes = zip(*(_training(folder) for folder in folders), strict=True)
    cost = json.loads((folders[0] / "results.json").read_text())["cost"]
    known = f"{cost['parameters'] / 1e6:.2f}", f"{cost['gflops_a_clip']:.2f}"
    return [f"{steps[0]:,}", f"{clips[0]:,}", f"{statistics.median(minutes):.0f}", *known]


def _training(folder: pathlib.Path) -> tuple[int, int, float]:
    """Steps, clips and minutes of a run, from its records."""
    config = json.loads((folder / "run.json").read_text())["config"]
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    steps, minutes, size = 0, 0.0, config["training"]["batch_size"]
    for record in records:
        if record["split"] == "train":
            minutes += (record["step"] - steps) * size / record["clips_per_second"] / 60
            steps = record["step"]
    return steps, steps * size, minutes


def on_real_video(data: pathlib.Path, workdir: pathlib.Path, names: Sequence[str], scale: float, seed: int) -> str:
    """Runs UT-Interaction for these methods, one after another; one table of all."""
    rows = []
    for name in names:
        folder = workdir / f"ut_interaction_{REAL[name]}_{seed}"
        script = pathlib.Path(__file__).parent / "ut_interaction.py"
        flags = ["--data", str(data), "--workdir", str(folder), "--method", REAL[name], "--scale", str(scale)]
        if subprocess.run([sys.executable, str(script), *flags, "--seed", str(seed)], check=False).returncode:
            raise UserError(f"{name} on {data} failed")
        scores = json.loads((folder / "scores.json").read_text())
        rows.append([name, *(_told(scores, ARMS[name].feature, *how) for how in READ.values())])
    return table_of([f"UT-Interaction, seed {seed}", *READ], rows)


def _told(scores: dict[str, Any], feature: str, kind: str, grid: str, control: str) -> str:
    score, low, high = scores[", ".join(filter(None, (kind, REPRESENTATION, feature, grid, control)))]
    return f"{100 * score:.0f} ({100 * low:.0f} to {100 * high:.0f})"


def main() -> None:
    """Runs what has not been run, writes and prints the tables."""
    parser = arms.arguments_of(ABLATION, __doc__)
    parser.add_argument("--data", type=pathlib.Path, help="UT-Interaction's segmented clips")
    arguments = parser.parse_args()
    folders = arms.run(ABLATION, arguments)
    head = ["training", "steps", "clips", "minutes", "parameters, millions", "multiply-adds a clip, billions"]
    tables = [table_of(head, [[name, *cost_of(found)] for name, found in folders.items()])]
    if arguments.data:
        names = [name for name in arguments.arms if name in REAL]
        where = arguments.data, arguments.workdir
        tables += [on_real_video(*where, names, arguments.scale, seed) for seed in arguments.seeds]
    text = "\n".join(tables)
    with (arguments.workdir / f"{ABLATION.name}.md").open("a") as file:
        file.write("\n" + text)
    print(text)


if __name__ == "__main__":
    call(main)
