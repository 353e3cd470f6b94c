"""Who starts several processes, and what is wrong with how they were started."""

import jax
import numpy as np
import pytest

from hcml_jax import cluster
from hcml_jax.config import ConfigError

SLURM = {"SLURM_STEP_NUM_TASKS": "4", "SLURM_STEP_NUM_NODES": "4"}
OPEN_MPI = {"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_LOCAL_SIZE": "1"}
KUBERNETES = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "JOB_COMPLETION_INDEX": "0"}


@pytest.fixture(autouse=True)
def bare(monkeypatch):
    """No launcher of this machine's own, and nothing of this process changed."""
    for name in SLURM | OPEN_MPI | KUBERNETES:
        monkeypatch.delenv(name, raising=False)
    for name in ("faulthandler.disable", "jax.config.update", "sys.excepthook"):
        monkeypatch.setattr(name, lambda *arguments: None)


@pytest.fixture
def asked(monkeypatch):
    """What `jax.distributed.initialize` was asked for."""
    arguments = {}
    monkeypatch.setattr(jax.distributed, "initialize", lambda **given: arguments.update(given))
    return arguments


@pytest.mark.parametrize(
    ("environment", "launcher"),
    [
        ({}, None),
        (SLURM, "Slurm"),
        (SLURM | {"SLURM_STEP_NUM_TASKS": "1"}, None),
        (OPEN_MPI, "Open MPI"),
        (KUBERNETES, "Kubernetes"),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, None),
    ],
)
def test_launchers_are_known_by_their_environment(environment, launcher, monkeypatch, asked):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert cluster.started_by() == launcher
    cluster.join()
    assert bool(asked) == (launcher is not None)


@pytest.mark.parametrize(
    ("environment", "devices"),
    [
        (SLURM, []),
        (SLURM | {"SLURM_STEP_NUM_TASKS": "32"}, None),
        (OPEN_MPI, []),
        (OPEN_MPI | {"OMPI_COMM_WORLD_LOCAL_SIZE": "2"}, None),
    ],
    ids=["Slurm, alone", "Slurm, 8 a host", "Open MPI, alone", "Open MPI, 2 a host"],
)
def test_the_only_process_of_a_host_takes_all_its_devices(environment, devices, monkeypatch, asked):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    cluster.join()
    assert asked["local_device_ids"] == devices  # None: one, by its number on the host


def test_processes_that_are_named_are_joined(asked):
    cluster.join("10.0.0.1:1234", 2, 1)
    expected = {"coordinator_address": "10.0.0.1:1234", "num_processes": 2, "process_id": 1}
    assert expected.items() <= asked.items()


def test_flags_that_go_together_are_asked_for(asked):
    with pytest.raises(ConfigError, match="go together; --num_processes and --process_id missing"):
        cluster.join("10.0.0.1:1234")
    with pytest.raises(ConfigError, match="--coordinator missing"):
        cluster.join("", 2, 0)
    assert not asked


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("message", ["RESOURCE_EXHAUSTED: out of memory", "UNAVAILABLE: gone"])
def test_only_what_a_lost_partner_raises_is_called_so(processes, message, monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: processes)
    lost = processes == 2 and message.startswith("UNAVAILABLE")
    expected = cluster.PartnerLostError if lost else jax.errors.JaxRuntimeError
    with pytest.raises(expected, match="gone|memory"), cluster.noticing_lost_partners():
        raise jax.errors.JaxRuntimeError(message)


@pytest.mark.parametrize("dtype", [np.float64, np.int64, np.bool_])
def test_gathered_arrays_keep_every_bit(dtype, monkeypatch):
    """Of two processes that hold the same; devices would round to 32 bits."""
    own = (np.random.default_rng(0).normal(size=(3, 2, 5)) * 1e6).astype(dtype)

    def allgather(array):
        return np.stack([jax.device_get(jax.numpy.asarray(array))] * 2)

    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(cluster.multihost_utils, "process_allgather", allgather)
    found = cluster.gather({"a": own})["a"]
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, np.concatenate([own, own]))
