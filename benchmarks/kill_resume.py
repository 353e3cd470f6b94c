"""Runs that are killed and resumed, against one that is not: `python benchmarks/kill_resume.py --kills 50`.

Every run is the whole of `launch.py` on the tests' tiny config. It is killed with SIGKILL five times, at random moments
all along its way, every second time while a checkpoint is being written, and started again until it is done. Then its
last checkpoint and its metrics must equal, bit for bit, those of the run that nobody killed. Exit code 0 if all do.
"""

import argparse
import contextlib
import os
import pathlib
import random
import subprocess
import sys
import tempfile
import time
from typing import Any, NamedTuple

import jax
import numpy as np

import hcml_jax
from hcml_jax.training.metrics import read_records

ROOT = pathlib.Path(__file__).parent.parent
KILLS_A_RUN = 5
STEPS = 6  # of each stage
POLL = 0.02  # seconds
# Sparse enough that kills fall between records, and between checkpoints.
FIELDS = [
    *(f"--config.method.stages.{stage}.steps={STEPS}" for stage in ("level0", "level1", "level2", "joint")),
    "--config.training.log_every=2",
    "--config.training.checkpoint_every=4",
]


def start(workdir: pathlib.Path, data: pathlib.Path) -> subprocess.Popen:
    """A process that trains and evaluates; compiled programs are shared, so that it spends its time in steps."""
    flags = [f"--workdir={workdir}", f"--config.data.root={data}", *FIELDS]
    command = [sys.executable, "launch.py", "--config=tests/tiny_config.py", *flags]
    cache = {
        "JAX_COMPILATION_CACHE_DIR": str(data.parent / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    with errors_of(workdir).open("w") as errors:
        quiet = {"stdout": subprocess.DEVNULL, "stderr": errors}
        return subprocess.Popen(command, cwd=ROOT, env=os.environ | cache, **quiet)


def errors_of(workdir: pathlib.Path) -> pathlib.Path:
    """The file with the error output of a run's last process."""
    return workdir.with_suffix(".log")


class Pace(NamedTuple):
    """When a run wrote each of its records, and when it was done, in seconds from its start."""

    moments: tuple[float, ...]
    end: float

    def gap(self, records: int) -> float:
        """Seconds from record number `records` to the next record, or to the end."""
        times = (0.0, *self.moments, self.end)
        return times[records + 1] - times[records]


def finish(workdir: pathlib.Path, data: pathlib.Path) -> Pace:
    """Run until done, and return the pace of the run."""
    began, moments = time.monotonic(), []
    process = start(workdir, data)
    while process.poll() is None:
        moments += [time.monotonic() - began] * (len(read_records(workdir)) - len(moments))
        time.sleep(POLL)
    if process.returncode:
        sys.exit(f"{workdir}: the run ended with {process.returncode}:\n{errors_of(workdir).read_text()}")
    return Pace(tuple(moments), time.monotonic() - began)


def kill(workdir: pathlib.Path, data: pathlib.Path, pace: Pace, moment: float, saving: bool) -> str | None:
    """Start a run and kill it at a moment or, if `saving`, at the first unfinished checkpoint after it.

    Args:
      moment: in records, for example 2.25: a quarter of the way from the second to the third.

    Returns:
      Where it was hit, for example "level1, while saving"; None if it was done before.
    """
    before, left = read_records(workdir), unfinished(workdir)
    process = start(workdir, data)
    count = int(moment)
    while process.poll() is None and len(read_records(workdir)) < count:
        time.sleep(POLL)
    wait(process, (moment - count) * pace.gap(count))
    while saving and process.poll() is None and not unfinished(workdir) - left:
        time.sleep(0.001)
    done = process.poll() is not None
    process.kill()
    process.wait()
    if done:
        return None
    where = place(before, read_records(workdir))
    return f"{where}, while saving" if unfinished(workdir) - left else where


def wait(process: subprocess.Popen, seconds: float) -> None:
    """Waits so long, or until the process ends."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(seconds)


def place(before: list, records: list) -> str:
    """Where a run was, from its records before it was started and now."""
    if records == before[: len(records)]:
        return "before its first record"
    last = records[-1]
    done = (last["stage"], last["stage_step"], last["split"]) == ("joint", STEPS, "validation")
    return "evaluation" if done else last["stage"]


def unfinished(workdir: pathlib.Path) -> set[str]:
    """Names of the checkpoints that are being written, or were when a process was killed."""
    folder = workdir / "checkpoints"
    return {path.name for path in folder.iterdir() if "tmp" in path.name} if folder.exists() else set()


def outcome(workdir: pathlib.Path) -> tuple[Any, list]:
    """The last checkpoint's variables, and the records without what depends on the clock."""
    records = [
        {name: value for name, value in record.items() if name != "clips_per_second"}
        for record in read_records(workdir)
    ]
    return hcml_jax.load(workdir).variables, records


def same(one: tuple[Any, list], other: tuple[Any, list]) -> bool:
    """Whether two outcomes are equal bit for bit."""
    leaves = [jax.tree.leaves(variables) for variables, _ in (one, other)]
    equal = all(np.array_equal(a, b) for a, b in zip(*leaves, strict=True))
    return equal and one[1] == other[1]


def main() -> None:
    """Prints a table of the kills, and whether every run came out the same."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    draw = random.Random(arguments.seed)
    hits: dict[str, int] = {}
    different, runs = 0, 0
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        data = folder / "data"
        finish(folder / "first", data)  # renders the clips and compiles
        pace = finish(folder / "whole", data)
        expected = outcome(folder / "whole")
        while sum(hits.values()) < arguments.kills:
            workdir = folder / f"run{runs}"
            runs += 1
            wanted = min(KILLS_A_RUN, arguments.kills - sum(hits.values()))
            moments = sorted(draw.uniform(0, len(pace.moments) + 1) for _ in range(wanted))
            for number, moment in enumerate(moments):
                hit = kill(workdir, data, pace, moment, saving=number % 2 == 1)
                if hit is None:
                    break
                hits[hit] = hits.get(hit, 0) + 1
                print(f"kill {sum(hits.values())}: {hit}", file=sys.stderr, flush=True)
            finish(workdir, data)
            if not same(outcome(workdir), expected):
                different += 1
                print(f"{workdir.name} differs", file=sys.stderr, flush=True)
    print("| killed in | times |\n|---|---|")
    for where, times in sorted(hits.items()):
        print(f"| {where} | {times} |")
    print(f"\n{sum(hits.values())} kills, {runs} runs, {different} different from the run that was not killed")
    sys.exit(different > 0)


if __name__ == "__main__":
    main()
