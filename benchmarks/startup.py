"""Seconds from `launch.py` to the first step of the demo: `python benchmarks/startup.py`.

The demo's videos must be there (`make demo` renders them). Each round starts a run of its own, and ends it once its
first step is recorded.
"""

import argparse
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

from hcml_jax.training.metrics import read_records

ROOT = pathlib.Path(__file__).parent.parent


def start(workdir: pathlib.Path) -> float:
    """Seconds until a run in `workdir` has recorded its first step."""
    flags = [f"--workdir={workdir}", "--config.training.log_every=1"]
    command = [sys.executable, "launch.py", "--config=configs/hcml_sprites.py", *flags]
    began = time.perf_counter()
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
    while process.poll() is None:
        if read_records(workdir):
            seconds = time.perf_counter() - began
            process.kill()
            process.wait()
            return seconds
        time.sleep(0.02)
    sys.exit(f"the run ended before its first step: {' '.join(command)}")


def main() -> None:
    """Prints the seconds of every round, and their median."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    seconds = []
    for _ in range(parser.parse_args().rounds):
        with tempfile.TemporaryDirectory() as folder:
            seconds.append(start(pathlib.Path(folder) / "run"))
    shown = ", ".join(f"{s:.1f}" for s in seconds)
    print(f"first step after {statistics.median(seconds):.1f} s (median of {shown})")


if __name__ == "__main__":
    main()
