"""The next frames of real videos: `python benchmarks/next_frames.py --data DIR --workdir runs/next_frames`.

DIR is any folder of videos. `configs/cgm_folder.py` learns motion maps of one half of its recordings without labels,
and predicts the frames of the other half; then the other way round. Clips of one recording stay together; it is read
from the names of UT-Interaction (`<id>_<sequence>_<label>`) and UCF-101 (`v_<class>_g<group>_c<clip>`); in any other
folder each video is a recording. The network is compared with frames made by its flow and by OpenCV's, and with copies
(CGM-Net Table 1). Means and the bootstrap of intervals are over recordings. Nothing is tuned. What is finished is not
run again.
"""

import argparse
import csv
import pathlib
import re
from typing import Any

import numpy as np
from runs import Processes, call
from ut_interaction import print_table

from configs import cgm_folder
from data_pipelines.table import VIDEO_ENDINGS
from hcml_jax.config import UserError
from hcml_jax.evaluation.intervals import PerVideo, intervals

KINDS = {"l1, thousandths": ("l1", 1e-3), "PSNR, dB": ("psnr", 1.0), "SSIM, %": ("ssim", 0.01)}
MAKERS = {"motion maps": "learnt", "their flow": "motion, flow", "flow, DIS": "classical", "copies": "copying"}


def recording(video: pathlib.Path) -> str:
    """What a video was cut out of."""
    match = re.fullmatch(r"\d+_(\d+)_\d+|(v_\w+_g\d+)_c\d+", video.stem)
    return next(filter(None, match.groups())) if match else video.stem


def write_tables(data: pathlib.Path, folder: pathlib.Path) -> list[pathlib.Path]:
    """A table for each half of the recordings: it teaches, and the other half is split "test".

    Raises:
      UserError: there is no such folder, or it holds less than two recordings.
    """
    if not data.is_dir():
        raise UserError(f"{data}: no such folder of videos")
    videos = sorted(path.absolute() for path in data.rglob("*") if path.suffix.lower() in VIDEO_ENDINGS)
    recordings = sorted({recording(video) for video in videos})
    if len(recordings) < 2:
        raise UserError(
            f"{data} holds {len(videos)} videos of {len(recordings)} recordings; one half teaches the other: two or "
            "more are needed"
        )
    first = recordings[: len(recordings) // 2]
    folder.mkdir(parents=True, exist_ok=True)
    tables = []
    for number in range(2):
        tables.append(folder / f"half{number}.csv")
        with tables[-1].open("w", newline="") as file:
            teaches = [(recording(video) in first) == (number == 0) for video in videos]
            rows = [(video, "", "train" if own else "test") for video, own in zip(videos, teaches, strict=True)]
            csv.writer(file).writerows([("path", "label", "split"), *rows])
    return tables


def config_of(data: pathlib.Path, table: pathlib.Path, scale: float, seed: int) -> dict[str, Any]:
    """The stage "motion" of `configs/cgm_folder.py` on a table."""
    config = cgm_folder.get_config().to_dict() | {"seed": seed}
    schedule = config["method"]["stages"]["motion"]
    steps = {"steps": max(2, round(schedule["steps"] * scale)), "warmup": schedule["warmup"] * scale}
    config["method"]["stages"] = {"motion": schedule | steps}
    # A score is of all videos: none is left out.
    config["data"] |= {"root": str(data.absolute()), "table": str(table.absolute()), "skip_bad": False}
    config["evaluation"] |= {"protocols": ("prediction",), "baselines": ("optical_flow",)}
    return config


def tested(table: pathlib.Path) -> list[str]:
    """The recording of each video of split "test", in the table's order."""
    with table.open(newline="") as file:
        return [recording(pathlib.Path(row["path"])) for row in csv.DictReader(file) if row["split"] == "test"]


def by_recording(values: np.ndarray, recordings: list[str]) -> np.ndarray:
    """The mean over the videos of each recording that were measured; recordings without any are left out."""
    measured = {name: [] for name in recordings}
    for name, value in zip(recordings, values, strict=True):
        if not np.isnan(value):
            measured[name].append(value)
    return np.array([np.mean(found) for found in measured.values() if found])


def rows_of(folders: list[pathlib.Path], tables: list[pathlib.Path]) -> list[list[str]]:
    """Of frames seen and unseen, a row for each maker, over the recordings of all folders."""
    files, rows = [np.load(folder / "per_video.npz") for folder in folders], []
    recordings = [name for table in tables for name in tested(table)]
    for part in ("seen", "unseen"):
        for title, maker in MAKERS.items():
            cells = []
            for kind, unit in KINDS.values():
                values = np.concatenate([file[f"prediction.{part}.{kind}.{maker}"] for file in files]) / unit
                cells.append(cell(by_recording(values, recordings)))
            rows.append([f"{title}, {part}", *cells])
    return rows


def cell(values: np.ndarray) -> str:
    """The mean with its 95% interval."""
    if not len(values):
        return "-"
    ((low, high),) = intervals([PerVideo(values, np.arange(len(values)))])
    return f"{values.mean():.1f} ({low:.1f} to {high:.1f})"


def main() -> None:
    """Runs what has not been run, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--workdir", type=pathlib.Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scale", type=float, default=1.0, help="of the config's steps")
    parser.add_argument("--processes", type=int, default=1, help="runs at a time")
    arguments = parser.parse_args()
    tables, processes = write_tables(arguments.data, arguments.workdir), Processes(arguments.processes)

    def finished(table: pathlib.Path) -> pathlib.Path:
        folder = arguments.workdir / f"{table.stem}_{arguments.seed}"
        processes.finish(config_of(arguments.data, table, arguments.scale, arguments.seed), folder)
        return folder

    folders = processes.side_by_side(finished, tables)
    print_table(["predicted frames", *KINDS], rows_of(list(folders.values()), tables))


if __name__ == "__main__":
    call(main)
