"""The table of all methods: what training cost, and what real video says of each."""

import importlib
import json
import pathlib
import subprocess

import pytest

from hcml_jax.config import UserError

BENCHMARKS = pathlib.Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("methods")


def test_minutes_are_those_of_all_records(benchmark, tmp_path):
    (tmp_path / "run.json").write_text(json.dumps({"config": {"training": {"batch_size": 16}}}))
    (tmp_path / "results.json").write_text(json.dumps({"cost": {"parameters": 1_230_000, "gflops_a_clip": 0.456}}))
    records = [
        {"split": "train", "step": 50, "clips_per_second": 10.0},
        {"split": "validation", "step": 50},
        {"split": "train", "step": 1200, "clips_per_second": 20.0},
    ]
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, records)))
    minutes = (50 * 16 / 10 + 1150 * 16 / 20) / 60
    assert benchmark.cost_of([tmp_path]) == ["1,200", "19,200", f"{minutes:.0f}", "1.23", "0.46"]


def test_real_video_has_a_row_for_each_method(benchmark, monkeypatch, tmp_path, capsys):
    def ran(command, check):
        folder = pathlib.Path(command[command.index("--workdir") + 1])
        folder.mkdir()
        name = "level2" if "hcml" in command else "backbone"
        keys = [
            f"{kind}, representation, {name}{grid}" for kind in ("knn", "linear") for grid in ("", ", Tx1x1", ", 3x3")
        ]
        (folder / "scores.json").write_text(json.dumps(dict.fromkeys(keys, (0.5, 0.4, 0.6))))
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", ran)
    benchmark.on_real_video(tmp_path / "clips", tmp_path, 3)
    text = capsys.readouterr().out
    for name in benchmark.REAL:
        assert f"| {name} | {' | '.join(['50 (40 to 60)'] * 6)} |" in text


def test_what_fails_on_real_video_is_named(benchmark, monkeypatch, tmp_path):
    failed = subprocess.CompletedProcess([], 1)
    monkeypatch.setattr(subprocess, "run", lambda command, check: failed)
    with pytest.raises(UserError, match=r"HCML on .*clips failed"):
        benchmark.on_real_video(tmp_path / "clips", tmp_path, 3)
