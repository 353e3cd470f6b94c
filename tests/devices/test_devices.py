"""One device, eight, two processes of two: the same losses, gradients, states and statistics."""

import os
import pathlib
import socket
import subprocess
import sys

import numpy as np
import pytest

CASES = ("level1", "joint", "mscl", "fima", "cgm_net")  # the joint stage has the terms of all levels
ROOT = pathlib.Path(__file__).parent.parent.parent


def start(out, devices, *flags):
    return start_module("one_step", devices, str(out), *flags)


def as_two(name, *flags):
    """Two processes of two devices each, which run a module."""
    together = [f"--coordinator=127.0.0.1:{free_port()}", "--num_processes=2", *flags]
    return [start_module(name, 2, *together, f"--process_id={i}") for i in range(2)]


def start_module(name, devices, *flags):
    # Compiled as for users: sums in unoptimised programs are far enough apart for a ReLU to switch.
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": str(devices), "XLA_FLAGS": ""}
    command = [sys.executable, "-m", f"tests.devices.{name}", *flags]
    return subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)


def finish(*processes):
    try:
        for process in processes:
            _, errors = process.communicate(timeout=600)
            assert process.returncode == 0, errors
    finally:  # one that hangs should not outlive its test
        for process in processes:
            process.kill()
            process.communicate()


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.fixture(scope="module")
def one_device(tmp_path_factory):
    out = tmp_path_factory.mktemp("steps") / "one.npz"
    finish(start(out, 1, "--cases", *CASES))
    return read(out)


def read(path):
    with np.load(path) as arrays:
        return dict(arrays)


def of_cases(found, cases):
    return {name: array for name, array in found.items() if name.split("/")[0] in cases}


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name in found:
        if name.endswith("attention/key/bias"):
            continue  # a softmax does not change when all its scores do: its gradient is what rounding leaves
        scale = max(np.abs(expected[name]).max(), 1e-6)
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-5, atol=1e-4 * scale, err_msg=name)


@pytest.mark.parametrize(
    ("flags", "cases"),
    [([], ["fima", "cgm_net"]), (["--shard_state"], ["joint", "mscl"]), (["--form=ring"], ["level1"])],
    ids=["data", "state", "ring"],
)
def test_eight_devices_equal_one(one_device, tmp_path, flags, cases):
    """The others' state in copies: in two processes, below."""
    finish(start(tmp_path / "out.npz", 8, *flags, "--cases", *cases))
    assert_same(read(tmp_path / "out.npz"), of_cases(one_device, cases))


def test_the_ring_over_eight_devices_equals_the_dense_form():
    finish(start_module("forms", 8))


def test_two_processes_of_two_devices_equal_one(one_device, tmp_path):
    cases, out = ("joint", "mscl", "fima", "cgm_net"), tmp_path / "out.npz"
    finish(*as_two("one_step", str(out), "--cases", *cases))
    assert_same(read(out), of_cases(one_device, cases))


def test_flow_of_a_network_is_the_same_in_two_processes(tmp_path):
    finish(start_module("flow", 1, str(tmp_path / "one.npz")), *as_two("flow", str(tmp_path / "two.npz")))
    expected, found = (read(tmp_path / f"{name}.npz")["flow"] for name in ("one", "two"))
    assert expected.shape == (8, 1, 4, 32, 32, 2) and np.abs(expected).max() > 0.5
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
