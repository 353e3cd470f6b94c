"""Real video: UT-Interaction, leave one sequence out.

`python benchmarks/ut_interaction.py --data DIR --workdir runs/ut_interaction`, where DIR holds the segmented clips
`<id>_<sequence>_<label>.avi`. HCML's self-supervised stages (or another --method's) learn from all clips, without
labels; or --weights are taken as they are. Then each sequence is left out in turn, and neighbours and probes of the
other clips classify its clips: by every feature and read-out of the network, of the untrained one and of the baselines,
and on reversed, shuffled and single-frame clips. Features are extracted once for all sequences. Intervals are from a
bootstrap over all clips. The compared pairs of a level and a baseline are not chosen by their scores, and each p is for
one pair alone. Finished work is not repeated.
"""

import argparse
import csv
import itertools
import json
import pathlib
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from runs import call, finish

from configs import cgm_folder, fima_folder, hcml_folder, mscl_folder
from data_pipelines import open_data
from hcml_jax.config import UserError, build
from hcml_jax.evaluation.intervals import PerVideo, intervals, paired_difference
from hcml_jax.evaluation.neighbours import knn_classify
from hcml_jax.evaluation.networks import Networks
from hcml_jax.evaluation.probe import fit_probe
from hcml_jax.evaluation.subject import REPRESENTATION, Subject
from hcml_jax.experiment import ExperimentConfig, complete
from hcml_jax.init_from import start_of
from hcml_jax.methods import build_method
from hcml_jax.training.workdir import Workdir

LABELS = ("handshake", "hug", "kick", "point", "punch", "push")
GRIDS, NEIGHBOURS = ("", "Tx1x1", "2x2", "3x3"), 5
# Method -> motion features that it learns.
LEVELS = {"hcml": ("level0", "level1", "level2"), "mscl": (), "moco": (), "fima": (), "cgm_net": ("motion",)}
SOURCES = {
    **{"hcml": hcml_folder, "mscl": mscl_folder, "moco": mscl_folder, "fima": fima_folder},
    "cgm_net": cgm_folder,
}
PARTS = {"cgm_net": ("backbone", "decoder", "context", "upsampler")}  # method -> what is evaluated, if not the backbone
CONTROLS = ("", "reversed", "shuffled", "single_frame")
BASELINES = ("frame_difference", "optical_flow", "pixels")

Classify = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]  # (gallery, its labels, queries) -> labels
KINDS: dict[str, Classify] = {
    "knn": lambda gallery, labels, queries: knn_classify(gallery, labels, queries, NEIGHBOURS),
    "linear": lambda gallery, labels, queries: fit_probe(gallery, labels).predict(queries),
}
Scores = dict[tuple[str, str, str, str, str], np.ndarray]  # (kind, source, feature, grid, control) -> of each clip


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


def write_table(path: pathlib.Path, clips, labelled: bool) -> None:
    """The table of all clips, as training clips."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("path", "label", "split"))
        for clip, _, label in clips:
            writer.writerow((clip, label if labelled else "", "train"))


def config_of(folder: pathlib.Path, table: pathlib.Path, factor: float, method: str = "hcml") -> dict[str, Any]:
    """`configs/hcml_folder.py`, or a method's in its place, on a table, its stages shortened by `factor`."""
    config = SOURCES[method].get_config().to_dict()
    if method == "moco":
        config["method"] |= {"flow_weight": 0.0, "cross_weight": 0.0, "local_weight": 0.0}
    # A score is of all clips: none is left out.
    config["data"] |= {"root": str(folder.absolute()), "table": str(table.absolute()), "skip_bad": False}
    for stage in config["method"]["stages"].values():
        stage["steps"] = max(1, round(stage["steps"] * factor))
        stage["warmup"] = stage["warmup"] * factor
    config["evaluation"] |= {"protocols": ("flow",), "figure_clips": 0}
    return config


def subject_of(config: dict[str, Any], weights: str, workdir: pathlib.Path) -> Subject:
    """A `Subject` with the network of a config and these weights, on the clips of its table."""
    parts = PARTS.get(config["method"]["name"], ("backbone",))
    config = complete(config | {"init_from": {"path": weights, "prefixes": parts}}).to_dict()
    typed = build(ExperimentConfig, config)
    future = max(stage.reads.future for stage in build_method(config["method"], 2).stages)
    data = open_data(typed.data, workdir, future=future)
    method = build_method(config["method"], len(data.classes))
    given = start_of(typed.init_from, method, data.clip_shape)()
    networks = Networks(method, data, Workdir(workdir), typed.seed, given)
    return Subject(networks, typed.evaluation, typed.training.batch_size)


def scores_of(subject: Subject, sequences: np.ndarray) -> Scores:
    """Whether each clip is classified correctly while its sequence is left out, as 0 or 1."""
    scores: Scores = {}
    sources = [REPRESENTATION, "untrained", *BASELINES]
    for source, control in itertools.product(sources, CONTROLS):
        if control and source == "untrained":
            continue
        gallery, shown = subject.extracted(source, "train"), subject.extracted(source, "train", control)
        for name, (kind, classify) in itertools.product(gallery.names, KINDS.items()):
            features, queries, found = gallery.feature(name), shown.feature(name), np.zeros(len(sequences), np.float32)
            for sequence in np.unique(sequences):
                out = sequences == sequence
                guesses = classify(features[~out], gallery.labels[~out], queries[out])
                found[out] = guesses == gallery.labels[out]
            feature, _, grid = name.partition("/")
            scores[kind, source, feature, grid, control] = found
    return scores


def with_intervals(scores: Scores) -> dict[tuple, tuple[float, float, float]]:
    """Score -> its mean over all clips, and the ends of its interval."""
    ends = intervals([PerVideo(hits, np.arange(len(hits))) for hits in scores.values()])
    return {
        name: (float(hits.mean()), *map(float, end)) for (name, hits), end in zip(scores.items(), ends, strict=True)
    }


def where(name: str) -> tuple[str, str]:
    """Source and feature of a row: "level0", "untrained, level0", or a baseline."""
    if name in BASELINES:
        return name, name
    source, _, feature = name.rpartition(", ")
    return source or REPRESENTATION, feature


def show(scores: Scores, found: dict[tuple, tuple[float, float, float]], levels: Sequence[str]) -> None:
    """Prints tables of both kinds of scores, of the controls, and of differences to the baselines.

    `levels` are the features that are compared; (): the backbone's.
    """

    def cell(kind: str, name: str, grid: str, control: str = "") -> str:
        score, low, high = found[kind, *where(name), grid, control]
        return f"{score:.3f} ({low:.2f} to {high:.2f})"

    compared = levels or ("backbone",)
    features = (*levels, "backbone", *(f"untrained, {name}" for name in compared), *BASELINES)
    for kind in KINDS:
        rows = [[name, *(cell(kind, name, grid) for grid in GRIDS)] for name in features]
        print_table([kind, *(grid or "mean" for grid in GRIDS)], rows)
    for kind, grid in itertools.product(KINDS, ("Tx1x1", "3x3")):
        rows = [[name, *(cell(kind, name, grid, control) for control in CONTROLS)] for name in (*compared, *BASELINES)]
        print_table([f"{kind}, {grid}", *(control or "as they are" for control in CONTROLS)], rows)
    rows = []
    for kind, grid, baseline, level in itertools.product(KINDS, ("Tx1x1", "3x3"), BASELINES[:2], compared):
        given = (scores[kind, *where(name), grid, ""] for name in (level, baseline))
        difference, (low, high), p = paired_difference(*given)
        name = f"{kind}, {grid}: {level}, {baseline}"
        rows.append([name, f"{difference:+.3f}", f"{low:+.3f} to {high:+.3f}", f"{p:.3f}"])
    print_table(["the network's less the baseline's", "difference", "95%", "p"], rows)


def print_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Prints a table in Markdown."""
    print(table_of(head, rows))


def table_of(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)) + "\n"


def main() -> None:
    """Trains and evaluates what is not done, and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--workdir", type=pathlib.Path, required=True)
    parser.add_argument("--method", choices=LEVELS, default="hcml")
    parser.add_argument("--weights", default="", help="evaluate these; nothing is trained")
    parser.add_argument("--start", default="", help="weights that training begins with")
    parser.add_argument("--scale", type=float, default=1.0, help="of the config's steps")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.weights and (arguments.start or arguments.scale != 1):
        parser.error("--weights are evaluated as they are: --start and --scale are for training")
    clips = read_clips(arguments.data)
    unlabelled, labelled = (arguments.workdir / name for name in ("unlabelled.csv", "labelled.csv"))
    write_table(unlabelled, clips, labelled=False)
    write_table(labelled, clips, labelled=True)
    weights = arguments.weights
    if not weights:
        config = config_of(arguments.data, unlabelled, arguments.scale, arguments.method) | {"seed": arguments.seed}
        prefixes = ("backbone", "heads") if arguments.method == "hcml" else ("backbone",)
        config |= {"init_from": {"path": arguments.start, "prefixes": prefixes if arguments.start else ()}}
        weights = str(arguments.workdir / "pretrained")
        finish(config, pathlib.Path(weights))
    config = config_of(arguments.data, labelled, 1.0, arguments.method) | {"seed": arguments.seed}
    sequences = np.array([sequence for _, sequence, _ in clips])
    scores = scores_of(subject_of(config, weights, arguments.workdir / "evaluated"), sequences)
    found = with_intervals(scores)
    show(scores, found, LEVELS[arguments.method])
    told = {", ".join(filter(None, name)): score for name, score in found.items()}
    (arguments.workdir / "scores.json").write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    call(main)
