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
    assert benchmark.tested(benchmark.write_tables(tmp_path, tmp_path / "run")[0]) == [*"cde"]
    tables = benchmark.write_tables(tmp_path, tmp_path / "run")
    splits = []
    for table in tables:
        with table.open(newline="") as file:
            splits.append({pathlib.Path(row["path"]).stem: row["split"] for row in csv.DictReader(file)})
    assert splits[0] == dict.fromkeys("ab", "train") | dict.fromkeys("cde", "test")
    assert splits[1] == dict.fromkeys("ab", "test") | dict.fromkeys("cde", "train")


def test_clips_of_one_recording_stay_in_one_half(benchmark, tmp_path):
    names = ["0_1_4", "9_1_2", "10_2_1", "2_3_0", "11_10_3", "v_Run_g01_c01", "v_Run_g01_c02", "v_Run_g02_c01"]
    for name in names:
        (tmp_path / f"{name}.avi").touch()
    recordings = [benchmark.recording(pathlib.Path(name)) for name in names]
    assert recordings == ["1", "1", "2", "3", "10", "v_Run_g01", "v_Run_g01", "v_Run_g02"]
    one, other = (set(benchmark.tested(table)) for table in benchmark.write_tables(tmp_path, tmp_path / "run"))
    assert len(one) == len(other) == 3 and one | other == set(recordings)


def test_means_are_over_recordings(benchmark):
    values = np.array([1.0, 3.0, np.nan, 7.0, np.nan])
    np.testing.assert_array_equal(benchmark.by_recording(values, ["a", "a", "b", "c", "c"]), [2, 7])
    assert benchmark.cell(np.array([])) == "-"


def test_one_video_is_too_few(benchmark, tmp_path):
    (tmp_path / "a.avi").touch()
    with pytest.raises(UserError, match="holds 1 videos of 1 recordings; .* two or more are needed"):
        benchmark.write_tables(tmp_path, tmp_path / "run")
    with pytest.raises(UserError, match="elsewhere: no such folder of videos"):
        benchmark.write_tables(tmp_path / "elsewhere", tmp_path / "run")


def test_motion_is_learnt_without_labels(benchmark, tmp_path):
    config = complete(benchmark.config_of(tmp_path, tmp_path / "half0.csv", 0.5, 3)).to_dict()
    assert build(ExperimentConfig, config).seed == 3
    (stage,) = build_method(config["method"], 0).stages
    assert (stage.name, stage.schedule.steps, stage.reads.future) == ("motion", 300, 1)
    assert config["evaluation"]["protocols"] == ("prediction",)


def test_figures_are_of_the_recordings_of_both_halves(benchmark, tmp_path):
    for half, value in (("half0_0", 0.2), ("half1_0", 0.4)):
        (tmp_path / half).mkdir()
        values = {
            f"prediction.{part}.{kind}.{maker}": np.full(2 if value < 0.3 else 1, value * unit)
            for part in ("seen", "unseen")
            for kind, unit in (("l1", 0.1), ("psnr", 100), ("ssim", 1))
            for maker in ("learnt", "motion, flow", "classical", "copying")
        }
        np.savez(tmp_path / half / "per_video.npz", **values)
    for name in ("0_1_4", "1_1_2", "2_2_0"):
        (tmp_path / f"{name}.avi").touch()
    tables = benchmark.write_tables(tmp_path, tmp_path / "run")[::-1]  # the second half's test videos are two of one
    rows = benchmark.rows_of([tmp_path / "half0_0", tmp_path / "half1_0"], tables)
    assert [row[0] for row in rows[:2]] == ["motion maps, seen", "their flow, seen"] and len(rows) == 8
    for row in rows:
        assert [cell.split(" ")[0] for cell in row[1:]] == ["30.0", "30.0", "30.0"]  # of two recordings
