"""Real video: UT-Interaction, leave one sequence out.

`python benchmarks/ut_interaction.py --data DIR --workdir runs/ut_interaction`, where DIR holds the segmented clips
`<id>_<sequence>_<label>.avi`. HCML's self-supervised stages learn from all clips, without labels. Then each sequence is
left out in turn, and neighbours and probes of the other clips classify its clips: by every feature and read-out of the
network, of the untrained one and of the baselines, and on reversed, shuffled and single-frame clips. Intervals are of a
bootstrap over all clips; of the pairs of a level and a baseline that are compared none is chosen by its score, and p is
that of each alone. What is finished is not run again.
"""

import argparse
import csv
import itertools
import json
import pathlib
import re
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from runs import call, finish

from configs import hcml_folder
from hcml_jax.config import UserError
from hcml_jax.evaluation.intervals import PerVideo, intervals, paired_difference
from hcml_jax.experiment import run
from hcml_jax.training.workdir import Workdir

LABELS = ("handshake", "hug", "kick", "point", "punch", "push")
LEVELS, KINDS, GRIDS = ("level0", "level1", "level2"), ("knn", "linear"), ("", "Tx1x1", "2x2", "3x3")
CONTROLS = ("", "reversed", "shuffled", "single_frame")
BASELINES = ("frame_difference", "optical_flow", "pixels")


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


def write_table(path: pathlib.Path, clips, left_out: int | None) -> None:
    """The table of a fold: the sequence left out is split "test"; None: all are training clips without a label."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("path", "label", "split"))
        for clip, sequence, label in clips:
            split = "test" if sequence == left_out else "train"
            writer.writerow((clip, "" if left_out is None else label, split))


def config_of(folder: pathlib.Path, table: pathlib.Path, factor: float) -> dict[str, Any]:
    """`configs/hcml_folder.py` on a table, its stages shortened by `factor`."""
    config = hcml_folder.get_config().to_dict()
    config["data"] |= {"root": str(folder.absolute()), "table": str(table.absolute())}
    for stage in config["method"]["stages"].values():
        stage["steps"] = max(1, round(stage["steps"] * factor))
        stage["warmup"] = stage["warmup"] * factor
    return config


def evaluated(config: dict[str, Any], pretrained: pathlib.Path, workdir: pathlib.Path) -> dict[str, np.ndarray]:
    """What each clip of the sequence left out adds to the scores of the pretrained network."""
    folder = Workdir(workdir)
    config["init_from"] = {"path": str(pretrained)}
    protocols = {"protocols": ("neighbours", "linear", "controls"), "neighbours": (5, 1, 10)}
    config["evaluation"] |= protocols | {"figure_clips": 0}
    if not folder.per_video.exists():
        run(config, str(workdir), "evaluate")
        jax.clear_caches()
    with np.load(folder.per_video) as scores:
        return dict(scores)


def joined(folds: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Score -> what each clip of all folds adds to it."""
    names = set.intersection(*(set(fold) for fold in folds)) - {"video"}
    return {name: np.concatenate([fold[name] for fold in folds]) for name in sorted(names)}


def with_intervals(scores: dict[str, np.ndarray]) -> dict[str, tuple[float, float, float]]:
    """Score -> its mean over all clips, and the ends of its interval."""
    shown = [name for name in scores if not any(part in name for part in ("families", "efficacy"))]
    ends = intervals([PerVideo(scores[name], np.arange(len(scores[name]))) for name in shown])
    return {name: (float(scores[name].mean()), *ends) for name, ends in zip(shown, ends, strict=True)}


def place(kind: str, feature: str, grid: str, control: str = "") -> str:
    """The name of a score: of "level0", or for example "untrained.level0"; grid "": of its mean."""
    beside, _, name = f"baseline.{feature}".rpartition(".") if feature in BASELINES else feature.rpartition(".")
    score = f"readouts.{name}/{grid}.{kind}" if grid else f"{kind}.{name}"
    return ".".join(filter(None, (control and f"controls.{control}", beside, score)))


def show(scores: dict[str, np.ndarray], found: dict[str, tuple[float, float, float]]) -> None:
    """Prints tables of both kinds of scores, of the controls, and of differences to the baselines."""

    def cell(*where: str) -> str:
        score, low, high = found[place(*where)]
        return f"{score:.3f} ({low:.2f} to {high:.2f})"

    features = (*LEVELS, "backbone", *(f"untrained.{name}" for name in LEVELS), *BASELINES)
    for kind in KINDS:
        rows = [[name, *(cell(kind, name, grid) for grid in GRIDS)] for name in features]
        print_table([kind, *(grid or "mean" for grid in GRIDS)], rows)
    for kind in KINDS:
        rows = [[name, *(cell(kind, name, "3x3", control) for control in CONTROLS)] for name in (*LEVELS, *BASELINES)]
        print_table([f"{kind}, 3x3", *(control or "as they are" for control in CONTROLS)], rows)
    rows = []
    for kind, grid, baseline, level in itertools.product(
        KINDS, ("Tx1x1", "3x3"), ("frame_difference", "optical_flow"), LEVELS
    ):
        given = (scores[place(kind, name, grid)] for name in (level, baseline))
        difference, (low, high), p = paired_difference(*given)
        name = f"{kind}, {grid}: {level}, {baseline}"
        rows.append([name, f"{difference:+.3f}", f"{low:+.3f} to {high:+.3f}", f"{p:.3f}"])
    print_table(["the network's less the baseline's", "difference", "95%", "p"], rows)


def print_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Prints a table in Markdown."""
    print("\n".join(f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)) + "\n")


def main() -> None:
    """Trains and evaluates what is not done, and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--workdir", type=pathlib.Path, required=True)
    parser.add_argument("--scale", type=float, default=0.25, help="of the config's steps")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    clips = read_clips(arguments.data)
    pretrained, table = arguments.workdir / "pretrained", arguments.workdir / "all.csv"
    write_table(table, clips, None)
    config = config_of(arguments.data, table, arguments.scale) | {"seed": arguments.seed}
    config["evaluation"]["protocols"] = ("flow",)
    finish(config, pretrained)
    folds = []
    for sequence in sorted({sequence for _, sequence, _ in clips}):
        table = arguments.workdir / f"sequence_{sequence}.csv"
        write_table(table, clips, sequence)
        config = config_of(arguments.data, table, arguments.scale) | {"seed": arguments.seed}
        folds.append(evaluated(config, pretrained, arguments.workdir / f"sequence_{sequence}_left_out"))
    scores = joined(folds)
    found = with_intervals(scores)
    show(scores, found)
    (arguments.workdir / "scores.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    call(main)
