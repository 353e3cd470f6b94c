"""Runs side by side: what one says that ends early, and what is not begun; few labels on real video."""

import importlib
import json
import multiprocessing
import os
import pathlib
import signal
import threading
import time

import pytest

from hcml_jax import methods
from hcml_jax.config import UserError, build
from hcml_jax.experiment import ExperimentConfig, complete
from tests import tiny_config

BENCHMARKS = pathlib.Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(autouse=True)
def benchmarks(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))


def test_a_run_that_ends_early_is_named_and_says_why_in_its_log(tmp_path):
    runs = importlib.import_module("runs")
    config = tiny_config.get_config().to_dict()
    config["data"] |= {"root": str(tmp_path / "nowhere"), "sprites": None}
    processes = runs.Processes(1)
    with pytest.raises(UserError, match=r"run: the run ended early \(1\); .*log.txt says why"):
        processes.finish(config, tmp_path / "run")
    assert "nowhere" in (tmp_path / "run" / "log.txt").read_text()

    def interrupt(key):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        processes.side_by_side(interrupt, [0])
    with pytest.raises(UserError, match="other: not begun"):
        processes.finish(config, tmp_path / "other")
    with pytest.raises(UserError, match="must be 1 or more, not 0"):
        runs.Processes(0)


def begin_and_wait(config, workdir):
    workdir.touch()
    time.sleep(60)


def test_a_signal_ends_the_runs_that_are_under_way(tmp_path, monkeypatch):
    runs, config = importlib.import_module("runs"), tiny_config.get_config().to_dict()
    monkeypatch.setattr(runs, "_run_logged", begin_and_wait)
    processes, folders = runs.Processes(2), [tmp_path / "a", tmp_path / "b"]

    def terminate():
        while not all(folder.exists() for folder in folders):
            time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=terminate, daemon=True).start()
    with pytest.raises(SystemExit):
        runs.call(lambda: processes.side_by_side(lambda folder: processes.finish(config, folder), folders))
    assert not multiprocessing.active_children()
    assert all(folder.exists() for folder in folders)


def test_what_is_finished_is_not_run_again(tmp_path, monkeypatch):
    runs, config = importlib.import_module("runs"), tiny_config.get_config().to_dict()
    monkeypatch.setattr(runs.Processes, "_run", None)
    (tmp_path / "results.json").write_text(json.dumps({"top1": 0.5}))
    processes = runs.Processes(1)
    assert processes.finish(config, tmp_path) == {"top1": 0.5}


def test_each_half_of_the_sequences_teaches_once(tmp_path):
    module = importlib.import_module("few_labels")
    clips = [(tmp_path / f"{sequence}.avi", sequence, "hug") for sequence in (1, 2, 3, 4)]
    first, second = (path.read_text().splitlines()[1:] for path in module.write_tables(tmp_path / "tables", clips))
    assert [line.rpartition(",")[2] for line in first] == ["train", "train", "test", "test"]
    assert [line.rpartition(",")[2] for line in second] == ["test", "test", "train", "train"]
    for start, path in (("none", ""), ("sprites", "sprites")):
        config = complete(module.config_of(tmp_path, tmp_path / "a.csv", start, 1e-2, 30)).to_dict()
        assert build(ExperimentConfig, config).init_from.path == path
        assert methods.build_method(config["method"], 6).stages[0].schedule.steps == 30
