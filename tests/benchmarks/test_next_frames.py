"""Next frames of real videos: no video is made by a network that has learnt from it."""

import csv
import importlib
import pathlib

import numpy as np
import pytest

from hcml_jax.config import UserError, build
from hcml_jax.experiment import ExperimentConfig, complete
from hcml_jax.methods import build_method

BENCHMARKS = pathlib.Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("next_frames")


def test_each_half_is_made_by_what_the_other_teaches(benchmark, tmp_path):
    for name in ("c.avi", "a.mp4", "b.avi", "notes.txt", "d.avi", "e.avi"):
        (tmp_path / name).touch()
    tables = benchmark.write_tables(tmp_path, tmp_path / "run")
    splits = []
    for table in tables:
        with table.open(newline="") as file:
            splits.append({pathlib.Path(row["path"]).stem: row["split"] for row in csv.DictReader(file)})
    assert splits[0] == dict.fromkeys("ab", "train") | dict.fromkeys("cde", "test")
    assert splits[1] == dict.fromkeys("ab", "test") | dict.fromkeys("cde", "train")


def test_one_video_is_too_few(benchmark, tmp_path):
    (tmp_path / "a.avi").touch()
    with pytest.raises(UserError, match="holds 1 videos; .* two or more are needed"):
        benchmark.write_tables(tmp_path, tmp_path / "run")
    with pytest.raises(UserError, match="elsewhere: no such folder of videos"):
        benchmark.write_tables(tmp_path / "elsewhere", tmp_path / "run")


def test_motion_is_learnt_without_labels(benchmark, tmp_path):
    config = complete(benchmark.config_of(tmp_path, tmp_path / "half0.csv", 0.5, 3)).to_dict()
    assert build(ExperimentConfig, config).seed == 3
    (stage,) = build_method(config["method"], 0).stages
    assert (stage.name, stage.schedule.steps, stage.reads.future) == ("motion", 300, 1)
    assert config["evaluation"]["protocols"] == ("prediction",)


def test_figures_are_of_the_videos_of_both_halves(benchmark, tmp_path):
    for half, value in (("half0_0", 0.2), ("half1_0", 0.4)):
        (tmp_path / half).mkdir()
        values = {
            f"prediction.{part}.{kind}.{maker}": np.full(2 if value < 0.3 else 1, value * unit)
            for part in ("seen", "unseen")
            for kind, unit in (("l1", 0.1), ("psnr", 100), ("ssim", 1))
            for maker in ("learnt", "motion, flow", "classical", "copying")
        }
        np.savez(tmp_path / half / "per_video.npz", **values)
    rows = benchmark.rows_of([tmp_path / "half0_0", tmp_path / "half1_0"])
    assert [row[0] for row in rows[:2]] == ["motion maps, seen", "their flow, seen"] and len(rows) == 8
    for row in rows:
        assert [cell.split(" ")[0] for cell in row[1:]] == ["26.7", "26.7", "26.7"]
