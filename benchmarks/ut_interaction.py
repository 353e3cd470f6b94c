"""Real video: UT-Interaction, leave one sequence out.

`python benchmarks/ut_interaction.py --data DIR --workdir runs/ut_interaction`, where DIR holds the segmented clips
`<id>_<sequence>_<label>.avi`. For each sequence, HCML learns from the clips of the others, and neighbours and probes
classify the clips of the one left out; the scores are means over all clips, beside the untrained network's and those
of a coarse map of frame differences. A fold that is finished is not run again.
"""

import argparse
import csv
import json
import pathlib
import re
from collections.abc import Mapping
from typing import Any

from runs import call, finish

from configs import hcml_folder
from hcml_jax.config import UserError

LABELS = ("handshake", "hug", "kick", "point", "punch", "push")


def read_clips(folder: pathlib.Path) -> list[tuple[pathlib.Path, int, str]]:
    """(path, sequence, label) of each clip, from its name.

    Raises:
      UserError: if there is none.
    """
    clips = []
    for path in sorted(folder.glob("*.avi")):
        match = re.fullmatch(r"\d+_(\d+)_([0-5])", path.stem)
        if match:
            clips.append((path.absolute(), int(match[1]), LABELS[int(match[2])]))
    if not clips:
        raise UserError(f"{folder} holds no clips named <id>_<sequence>_<label>.avi")
    return clips


def write_table(path: pathlib.Path, clips, left_out: int) -> None:
    """The table of a fold: the sequence left out is split "test"."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("path", "label", "split"))
        for clip, sequence, label in clips:
            writer.writerow((clip, label, "test" if sequence == left_out else "train"))


def fold_config(folder: pathlib.Path, table: pathlib.Path, factor: float) -> dict[str, Any]:
    """`configs/hcml_folder.py` for one fold, its stages shortened by `factor`."""
    config = hcml_folder.get_config().to_dict()
    config["data"] |= {"root": str(folder.absolute()), "table": str(table.absolute())}
    for stage in config["method"]["stages"].values():
        stage["steps"] = max(1, round(stage["steps"] * factor))
        stage["warmup"] = stage["warmup"] * factor
    return config


def scores(results: Mapping[str, Any]) -> dict[str, float]:
    """The figures of a fold that are averaged."""
    kinds = [(kind, results[kind]) for kind in ("knn", "linear")]
    kinds += [(f"untrained {kind}", results["untrained"][kind]) for kind in ("knn", "linear")]
    kinds += [(f"baseline {kind}", results["baseline"][kind]) for kind in ("knn", "linear")]
    flat = {f"{kind} {name}": value for kind, named in kinds for name, value in named.items()}
    return flat | {"top1": results["top1"]}


def main() -> None:
    """Runs the folds that are not done, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--workdir", type=pathlib.Path, required=True)
    parser.add_argument("--scale", type=float, default=0.25, help="of the config's steps")
    arguments = parser.parse_args()
    clips = read_clips(arguments.data)
    totals: dict[str, float] = {}
    for sequence in sorted({sequence for _, sequence, _ in clips}):
        table = arguments.workdir / f"sequence_{sequence}.csv"
        write_table(table, clips, sequence)
        config = fold_config(arguments.data, table, arguments.scale)
        results = finish(config, arguments.workdir / f"sequence_{sequence}_left_out")
        share = sum(s == sequence for _, s, _ in clips) / len(clips)
        for name, value in scores(results).items():
            totals[name] = totals.get(name, 0.0) + share * value
    (arguments.workdir / "scores.json").write_text(json.dumps(totals, indent=1) + "\n")
    print("| score | mean over clips |\n|---|---|")
    for name, value in totals.items():
        print(f"| {name} | {value:.3f} |")


if __name__ == "__main__":
    call(main)
