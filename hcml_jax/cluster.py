"""Joining the processes of a cluster into one run, and what they do together."""

import contextlib
import faulthandler
import importlib.util
import itertools
import math
import os
import pathlib
import sys
import traceback
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils
from tqdm import tqdm

from hcml_jax.config import ConfigError, UserError

T = TypeVar("T")

# A dead process is noticed after at most this time.
HEARTBEAT_SECONDS = 30

# Long work of one process, such as scanning a million videos, must not let the others time out.
PATIENCE_DAYS = 10

_meetings = itertools.count()  # alike in all processes, for they meet in the same order

# What tells that there are several processes.
_LAUNCHERS = {"Slurm": "SLURM_STEP_NUM_TASKS", "Open MPI": "OMPI_COMM_WORLD_SIZE"}

# Errors of a computation that say nothing of other processes.
_OWN_FAULTS = ("RESOURCE_EXHAUSTED", "INVALID_ARGUMENT", "FAILED_PRECONDITION", "UNIMPLEMENTED")


def join(coordinator: str = "", num_processes: int = 0, process_id: int = -1) -> None:
    """Start `jax.distributed` if this process is one of several; call it before any other use of jax.

    Args:
      coordinator: "host:port" of the first process; "": ask Slurm, Open MPI, Kubernetes or the TPU pod, whichever
        started this process; without any, it is the only process.
      num_processes: number of processes of the run; only with `coordinator`.
      process_id: index of this process, from 0; only with `coordinator`.

    Raises:
      ConfigError: some of the three are given, not all.
      UserError: the processes cannot connect.
    """
    given = {"coordinator": coordinator, "num_processes": num_processes > 0, "process_id": process_id >= 0}
    missing = [f"--{name}" for name, value in given.items() if not value]
    if 0 < len(missing) < len(given):
        raise ConfigError(
            f"--coordinator, --num_processes and --process_id go together; {' and '.join(missing)} missing"
        )
    explicit = {"coordinator_address": coordinator, "num_processes": num_processes, "process_id": process_id}
    if not missing:
        _start(coordinator, **explicit, cluster_detection_method="deactivate")
    elif launcher := started_by():
        # By default a process of Slurm or Open MPI takes one device; the only process of a host should take all.
        _start(launcher, local_device_ids=[] if _processes_on_host(launcher) == 1 else None)


def started_by() -> str | None:
    """What started this process as one of several: "Slurm", "Open MPI", "TPU", "Kubernetes", or None."""
    for name, variable in _LAUNCHERS.items():
        if int(os.environ.get(variable, "1")) > 1:
            return name
    if _is_tpu_host():
        return "TPU"
    in_indexed_job = {"KUBERNETES_SERVICE_HOST", "JOB_COMPLETION_INDEX"} <= os.environ.keys()
    return "Kubernetes" if in_indexed_job else None


def _processes_on_host(launcher: str) -> int:
    if launcher == "Slurm":
        tasks, nodes = (int(os.environ[f"SLURM_STEP_NUM_{what}"]) for what in ("TASKS", "NODES"))
        return -(-tasks // nodes)
    return int(os.environ.get("OMPI_COMM_WORLD_LOCAL_SIZE", "1"))


def _is_tpu_host() -> bool:
    devices = (pathlib.Path("/dev/accel0"), pathlib.Path("/dev/vfio/0"))
    return importlib.util.find_spec("libtpu") is not None and any(d.exists() for d in devices)


def _start(named: str, **arguments) -> None:
    # If the first process dies, the runtime ends this one with a message; no stack traces after it.
    faulthandler.disable()
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    # Signals are the loop's: it saves first (training/stopping.py).
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(heartbeat_timeout_seconds=HEARTBEAT_SECONDS, **arguments)
    except (RuntimeError, ValueError, OSError) as error:
        raise UserError(f"the processes of this run ({named}) do not come together: {error}") from error
    sys.excepthook = _leave


def _leave(*error) -> None:
    traceback.print_exception(*error)
    end("this process ends; the others will notice")


def end(message: str) -> None:
    """Ends this process with exit code 1 and a message."""
    if jax.process_count() == 1:
        sys.exit(message)
    print(message, file=sys.stderr, flush=True)
    os._exit(1)  # an orderly end would wait for the others, and they for this one


def meet() -> None:
    """A barrier: return once all processes have reached it, however long the last one takes.

    A device collective would do, but it times out after half a minute if it is the first one.
    """
    if jax.process_count() == 1:
        return
    from orbax.checkpoint import multihost

    milliseconds = PATIENCE_DAYS * 24 * 3600 * 1000
    multihost.get_barrier_sync_fn()(key=f"hcml_jax/{next(_meetings)}", timeout_ms=milliseconds)


class PartnerLostError(UserError):
    """Another process of the run has ended without saying why."""


@contextlib.contextmanager
def noticing_lost_partners():
    """Convert the runtime's error after the loss of a process to a PartnerLostError; other errors pass."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if jax.process_count() == 1 or str(error).startswith(_OWN_FAULTS):
            raise
        reason = str(error).splitlines()[0]
        raise PartnerLostError(
            "another process of this run has ended, or cannot be reached; start all of them again, and the same "
            f"command goes on from the last checkpoint ({reason})"
        ) from error


def is_first() -> bool:
    """Whether this process writes what a run writes once."""
    return jax.process_index() == 0


def shard() -> dict[str, int]:
    """Which part of each batch this process reads, as `Data` takes it."""
    return {"shard_index": jax.process_index(), "num_shards": jax.process_count()}


def say(line: str) -> None:
    """Print a line to standard error, in the first process only; it does not break progress bars."""
    if is_first():
        tqdm.write(line, file=sys.stderr)
        sys.stderr.flush()


def first_then_others(action: Callable[[], T]) -> T:
    """Run `action` in the first process, then in the others, so that they find what it wrote; return its result.

    Raises:
      UserError: in the others, if the first one failed.
    """
    if jax.process_count() == 1:
        return action()
    failure, result = None, None
    if is_first():
        try:
            result = action()
        except Exception as error:  # raised below, once the others know
            failure = error
    meet()
    went_well = of_first(failure is None)
    if failure:
        raise failure
    if not went_well:
        raise UserError("the first process could not go on: its own message says why")
    return result if is_first() else action()


def of_first(truth: bool) -> bool:
    """Broadcast the first process's value to all processes."""
    if jax.process_count() == 1:
        return truth
    return bool(multihost_utils.broadcast_one_to_all(np.array(truth)))


def gather(tree: Any) -> Any:
    """Arrays `[N, ...]` of all processes joined along their first axis, on every process; N may differ."""
    if jax.process_count() == 1:
        return tree
    return jax.tree.map(_gather, tree)


def _gather(array: np.ndarray) -> np.ndarray:
    counts = np.asarray(multihost_utils.process_allgather(np.array(len(array))))
    row = array.itemsize * math.prod(array.shape[1:])
    # As bytes: devices would round float64 to float32.
    own = np.frombuffer(array.tobytes(), np.uint8).reshape(len(array), row)
    padded = np.pad(own, [(0, counts.max() - len(array)), (0, 0)])
    parts = np.asarray(multihost_utils.process_allgather(padded))
    rows = np.concatenate([part[:count] for part, count in zip(parts, counts, strict=True)])
    return np.frombuffer(rows.tobytes(), array.dtype).reshape(-1, *array.shape[1:])
