"""Joining the processes of a cluster into one run."""

import importlib.util
import os
import pathlib

import jax

from hcml_jax.config import ConfigError, UserError

# A process that died is noticed after at most so long.
HEARTBEAT_SECONDS = 30

_LAUNCHERS = {"Slurm": "SLURM_STEP_NUM_TASKS", "Open MPI": "OMPI_COMM_WORLD_SIZE"}


def join(coordinator: str = "", num_processes: int = 0, process_id: int = -1) -> None:
    """Starts `jax.distributed` if this process is one of several; before anything else of jax.

    Args:
      coordinator: "host:port" of the first process; "": ask Slurm, Open MPI or the TPU pod, whichever started this
        process, and where there is none, be alone.
      num_processes: of the run; with `coordinator` alone.
      process_id: this one's number, from 0; with `coordinator` alone.

    Raises:
      ConfigError: some of the three are given, not all.
      UserError: the processes do not come together.
    """
    given = {
        "coordinator": coordinator,
        "num_processes": num_processes > 0,
        "process_id": process_id >= 0,
    }
    missing = [f"--{name}" for name, value in given.items() if not value]
    if 0 < len(missing) < len(given):
        raise ConfigError(
            f"--coordinator, --num_processes and --process_id go together; {' and '.join(missing)} missing"
        )
    explicit = {
        "coordinator_address": coordinator,
        "num_processes": num_processes,
        "process_id": process_id,
    }
    if not missing:
        _start(coordinator, **explicit, cluster_detection_method="deactivate")
    elif launcher := started_by():
        _start(launcher)


def started_by() -> str | None:
    """What started this process as one of several: "Slurm", "Open MPI", "TPU", or None."""
    for name, variable in _LAUNCHERS.items():
        if int(os.environ.get(variable, "1")) > 1:
            return name
    return "TPU" if _is_tpu_host() else None


def _is_tpu_host() -> bool:
    devices = (pathlib.Path("/dev/accel0"), pathlib.Path("/dev/vfio/0"))
    return importlib.util.find_spec("libtpu") is not None and any(d.exists() for d in devices)


def _start(named: str, **arguments) -> None:
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    # Signals are the loop's: it saves first (training/stopping.py).
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(heartbeat_timeout_seconds=HEARTBEAT_SECONDS, **arguments)
    except (RuntimeError, ValueError, OSError) as error:
        raise UserError(
            f"the processes of this run ({named}) do not come together: {error}"
        ) from error
