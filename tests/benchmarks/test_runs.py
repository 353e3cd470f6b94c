"""Runs side by side: what one says that ends early, and what is not begun; few labels on real video."""

import importlib
import json
import os
import pathlib
import signal
import subprocess
import sys
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
    with pytest.raises(UserError, match="must be 1 or more, not 0"):
        runs.Processes(0)


PARENT = """
import os, pathlib, sys, time
import runs
from tests import tiny_config

def wait(config, workdir, mode):
    pathlib.Path(workdir, "pid").write_text(str(os.getpid()))
    time.sleep(60)

runs.run = wait  # in the child, which reads this file too, as well
if __name__ == "__main__":
    runs.Processes(1).finish(tiny_config.get_config().to_dict(), pathlib.Path(sys.argv[1]))
"""


def test_a_run_does_not_outlive_the_benchmark(tmp_path):
    (tmp_path / "parent.py").write_text(PARENT)
    pid = tmp_path / "run" / "pid"
    paths = os.pathsep.join((str(BENCHMARKS), str(BENCHMARKS.parent)))
    command = [sys.executable, str(tmp_path / "parent.py"), str(pid.parent)]
    parent = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": paths})
    wait_until(lambda: pid.exists() and pid.read_text())
    parent.kill()
    parent.wait()
    wait_until(lambda: not pathlib.Path("/proc", pid.read_text()).exists())


def wait_until(condition):
    deadline = time.monotonic() + 50
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_an_interruption_lets_no_more_runs_begin_also_after_an_error(tmp_path):
    runs = importlib.import_module("runs")
    processes, failed = runs.Processes(1), threading.Event()

    def fail_or_interrupt(key):
        if key:
            failed.set()
            raise UserError("failed")
        failed.wait()
        time.sleep(0.5)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        deadline = time.monotonic() + 60  # on a busy machine
        while not processes._stopped and time.monotonic() < deadline:
            time.sleep(0.01)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    try:
        with pytest.raises(KeyboardInterrupt):
            processes.side_by_side(fail_or_interrupt, [0, 1])
    finally:
        signal.signal(signal.SIGINT, before)
    with pytest.raises(UserError, match="not begun"):
        processes.finish(tiny_config.get_config().to_dict(), tmp_path / "run")


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
