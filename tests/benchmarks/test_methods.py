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


def test_real_video_has_a_row_for_each_method(benchmark, monkeypatch, tmp_path):
    commands = []

    def ran(command, check):
        commands.append(command)
        folder = pathlib.Path(command[command.index("--workdir") + 1])
        folder.mkdir()
        name = "level2" if "hcml" in command else "backbone"
        shares = {
            "knn": 0.1,
            "knn, Tx1x1": 0.2,
            "knn, 3x3": 0.3,
            "linear": 0.4,
            "linear, Tx1x1": 0.5,
            "linear, 3x3": 0.6,
            "linear, 3x3, reversed": 0.7,
            "linear, 3x3, shuffled": 0.8,
            "linear, 3x3, single_frame": 0.9,
        }
        scores = {}
        for key, share in shares.items():
            kind, *rest = key.split(", ")
            scores[", ".join([kind, "representation", name, *rest])] = (share, 0.0, 1.0)
        (folder / "scores.json").write_text(json.dumps(scores))
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", ran)
    text = benchmark.on_real_video(tmp_path / "clips", tmp_path, ["HCML", "CGM-Net"], 0.5, 3)
    told = " | ".join(f"{10 * n} (0 to 100)" for n in range(1, 10))
    assert text.splitlines()[2:] == [f"| HCML | {told} |", f"| CGM-Net | {told} |"]
    for command, method in zip(commands, ("hcml", "cgm_net"), strict=True):
        given = dict(zip(command[2::2], command[3::2], strict=True))
        assert given == {
            "--data": str(tmp_path / "clips"),
            "--workdir": str(tmp_path / f"ut_interaction_{method}_3"),
            "--method": method,
            "--scale": "0.5",
            "--seed": "3",
        }


def test_what_fails_on_real_video_is_named(benchmark, monkeypatch, tmp_path):
    failed = subprocess.CompletedProcess([], 1)
    monkeypatch.setattr(subprocess, "run", lambda command, check: failed)
    with pytest.raises(UserError, match=r"HCML on .*clips failed"):
        benchmark.on_real_video(tmp_path / "clips", tmp_path, ["HCML"], 1.0, 3)
