"""Fine-tuning on a few labelled real clips, from weights and from none.

`python benchmarks/few_labels.py --data DIR --workdir runs/few_labels`; the clips are those of `ut_interaction.py` here.
All layers learn from one half of the sequences, 5 clips a class, and the other half is classified; then the other way
round. There are too few clips to tune on: every rate is reported. What is finished is not run again.
"""

import argparse
import csv
import itertools
import pathlib
from typing import Any

import numpy as np
from runs import Processes, call
from ut_interaction import print_table, read_clips

from configs import hcml_folder
from hcml_jax.evaluation.intervals import PerVideo, intervals

RATES = (3e-3, 1e-2)


def write_tables(folder: pathlib.Path, clips: list[tuple[pathlib.Path, int, str]]) -> list[pathlib.Path]:
    """A table for each half, which is split "train"; the other half is split "test"."""
    sequences = sorted({sequence for _, sequence, _ in clips})
    halves = sequences[: len(sequences) // 2], sequences[len(sequences) // 2 :]
    folder.mkdir(parents=True, exist_ok=True)
    tables = []
    for number, half in enumerate(halves):
        tables.append(folder / f"half{number}.csv")
        with tables[-1].open("w", newline="") as file:
            rows = [(clip, label, "train" if sequence in half else "test") for clip, sequence, label in clips]
            csv.writer(file).writerows([("path", "label", "split"), *rows])
    return tables


def config_of(root: pathlib.Path, table: pathlib.Path, start: str, rate: float, steps: int) -> dict[str, Any]:
    """The network of `configs/hcml_folder.py` on a table's labels alone; "none" starts from nothing."""
    config = hcml_folder.get_config().to_dict()
    schedule = config["method"]["stages"]["joint"] | {"steps": steps, "warmup": steps / 6, "learning_rate": rate}
    config["method"] = {
        "name": "supervised",
        "backbone": config["method"]["backbone"],
        "motion_blocks": ("res2", "res3", "res4"),
        "flip": True,
        "stages": {"supervised": schedule},
    }
    config["data"] |= {"root": str(root.absolute()), "table": str(table.absolute()), "skip_bad": False}
    config["training"]["checkpoint_every"] = 1000
    config["evaluation"] |= {"protocols": ("recognition",), "views": ("3x1",), "baselines": (), "figure_clips": 0}
    if start != "none":
        config["init_from"] = {"path": start, "prefixes": ("backbone",)}
    return config


def main() -> None:
    """Runs what has not been run, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--workdir", type=pathlib.Path, required=True)
    parser.add_argument("--starts", nargs="+", default=["none", "sprites"], help="weights, or none")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--processes", type=int, default=1, help="runs at a time")
    arguments = parser.parse_args()
    tables = write_tables(arguments.workdir, read_clips(arguments.data))
    processes = Processes(arguments.processes)

    def finished(one: tuple[str, float, int]) -> pathlib.Path:
        start, rate, half = one
        folder = arguments.workdir / f"{pathlib.Path(start).name}_{rate:g}_half{half}"
        processes.finish(config_of(arguments.data, tables[half], start, rate, arguments.steps), folder)
        return folder

    folders = processes.side_by_side(finished, list(itertools.product(arguments.starts, RATES, range(len(tables)))))
    rows = []
    for start in arguments.starts:
        cells = []
        for rate in RATES:
            halves = [np.load(folders[start, rate, half] / "per_video.npz")["top1"] for half in range(len(tables))]
            hits = np.concatenate(halves)
            ((low, high),) = intervals([PerVideo(hits, np.arange(len(hits)))])
            cells.append(f"{hits.mean():.3f} ({low:.2f} to {high:.2f})")
        rows.append([start, *cells])
    print_table([f"top-1 after {arguments.steps} steps, from", *(f"rate {rate:g}" for rate in RATES)], rows)


if __name__ == "__main__":
    call(main)
