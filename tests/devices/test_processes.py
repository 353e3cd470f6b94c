"""`launch.py` as two processes of two devices each: the run of one; a dead partner is noticed, both or one go on."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from hcml_jax.training.metrics import read_records
from tests.devices.test_devices import free_port

ROOT = pathlib.Path(__file__).parent.parent.parent
LONG = [
    f"--config.method.stages.level0.steps={10**6}",
    "--config.training.checkpoint_every=2",
    "--config.training.shard_state=True",
]


def start(workdir, data, *flags, devices=1):
    config = f"--config={ROOT / 'tests' / 'devices' / 'short_config.py'}"
    place = [f"--workdir={workdir}", f"--config.data.root={data}"]
    return subprocess.Popen(
        [sys.executable, "launch.py", config, *place, *flags],
        cwd=ROOT,
        env=os.environ | {"JAX_NUM_CPU_DEVICES": str(devices)},
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )


def start_pair(workdir, data, *flags):
    together = [f"--coordinator=127.0.0.1:{free_port()}", "--num_processes=2", *flags]
    return [start(workdir, data, *together, f"--process_id={i}", devices=2) for i in range(2)]


def finish(*processes):
    for process in processes:
        _, errors = process.communicate(timeout=400)
        assert process.returncode == 0, errors


def last_step(workdir):
    records = read_records(workdir)
    return records[-1]["step"] if records else 0


def wait_for_step(workdir, step):
    deadline = time.monotonic() + 300
    while last_step(workdir) < step and time.monotonic() < deadline:
        time.sleep(0.1)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tmp_path_factory.mktemp("data") / "sprites"


@pytest.fixture(scope="module")
def alone(data, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "alone"
    finish(start(workdir, data))
    return workdir


def test_two_processes_run_as_one(alone, data, tmp_path):
    finish(*start_pair(tmp_path / "pair", data))
    expected, found = (read_records(w) for w in (alone, tmp_path / "pair"))
    names = [(r["step"], r["stage"], r["split"]) for r in expected]
    assert [(r["step"], r["stage"], r["split"]) for r in found] == names
    np.testing.assert_allclose(found[0]["loss"], expected[0]["loss"], rtol=1e-5)
    losses = [[r["loss"] for r in records] for records in (found, expected)]
    np.testing.assert_allclose(*losses, rtol=1e-2)  # steps drift apart
    assert (tmp_path / "pair" / "results.json").exists()


def test_scores_are_the_same_on_any_devices(alone, tmp_path):
    """Of the same checkpoint: one device, eight, two processes of two."""
    data = json.loads((alone / "run.json").read_text())["config"]["data"]["root"]
    flags = "--mode=evaluate", f"--config.evaluation.protocols={('recognition', 'flow', 'neighbours', 'linear')}"
    found = []
    for name, begin in (
        ("one", lambda workdir: [start(workdir, data, *flags)]),
        ("eight", lambda workdir: [start(workdir, data, *flags, devices=8)]),
        ("pair", lambda workdir: start_pair(workdir, data, *flags)),
    ):
        shutil.copytree(alone, tmp_path / name, ignore=shutil.ignore_patterns("features", "figures"))
        finish(*begin(tmp_path / name))
        found.append(flatten_dict(json.loads((tmp_path / name / "results.json").read_text())))
        with np.load(tmp_path / name / "per_video.npz") as scores:
            found[-1] |= {name: scores[name] for name in scores}
    for other in found[1:]:
        assert other.keys() == found[0].keys()
        for path, value in found[0].items():
            if np.asarray(value).dtype.kind == "U":
                np.testing.assert_array_equal(other[path], value)
            else:  # of an interval, an end may be None
                numbers = np.asarray(other[path], float), np.asarray(value, float)
                np.testing.assert_allclose(*numbers, rtol=1e-4, atol=1e-5, err_msg=str(path))


def test_a_run_goes_on_with_other_devices(alone, tmp_path):
    """From the end of the first stage: the same clips, and the losses, equal until steps drift apart."""
    workdir = tmp_path / "moved"
    shutil.copytree(alone, workdir)
    expected = read_records(alone)
    done = max(r["step"] for r in expected if r["stage"] == "level0")
    for checkpoint in (workdir / "checkpoints").iterdir():
        if int(checkpoint.name) > done:
            shutil.rmtree(checkpoint)
    data = json.loads((alone / "run.json").read_text())["config"]["data"]["root"]
    finish(start(workdir, data, devices=4))
    found = [r for r in read_records(workdir) if r["step"] > done]
    expected = [r for r in expected if r["step"] > done]
    np.testing.assert_allclose(found[0]["loss"], expected[0]["loss"], rtol=1e-5)
    losses = [[r["loss"] for r in records] for records in (found, expected)]
    np.testing.assert_allclose(*losses, rtol=1e-2)  # steps drift apart


@pytest.mark.parametrize("dies", [0, 1])
def test_a_dead_partner_is_noticed_and_the_run_goes_on(data, alone, tmp_path, dies):
    workdir = tmp_path / "pair"
    pair = start_pair(workdir, data, *LONG)
    wait_for_step(workdir, 4)
    pair[dies].send_signal(signal.SIGKILL)
    _, errors = pair[1 - dies].communicate(timeout=60)
    pair[dies].communicate()
    assert pair[1 - dies].returncode not in (0, None)
    said = "another process of this run has ended", "most likely indicates that another task died"
    assert any(line in errors for line in said), errors
    assert errors.count("\n") < 60, errors
    if dies == 0:
        goes_on(workdir, lambda: start_pair(workdir, data, *LONG))
    else:
        goes_on(workdir, lambda: [start(workdir, data, *LONG)])


def goes_on(workdir, begin):
    before = last_step(workdir)
    processes = begin()
    wait_for_step(workdir, before + 2)
    for process in processes:
        process.send_signal(signal.SIGTERM)
    for process in processes:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 128 + signal.SIGTERM, errors
        assert "stopped and saved at step" in errors


def test_one_that_fails_ends_at_once_and_the_other_notices(data, alone, tmp_path):
    workdir = tmp_path / "pair"
    pair = start_pair(workdir, data, *LONG)
    wait_for_step(workdir, 4)
    (workdir / "metrics.jsonl").unlink()
    for process in pair:
        _, errors = process.communicate(timeout=60)
        assert process.returncode not in (0, None)
        if process is pair[0]:
            assert "metrics.jsonl is gone" in errors.splitlines()[-1]
