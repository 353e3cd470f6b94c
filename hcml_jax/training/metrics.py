"""What a run tells: `metrics.jsonl`, TensorBoard events and a progress line."""

import contextlib
import json
import pathlib
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hcml_jax import cluster
from hcml_jax.config import UserError
from hcml_jax.files import replace_text

Record = dict[str, Any]


class MetricsWriter:
    """Appends records to `metrics.jsonl` and to TensorBoard events; only the first process writes."""

    def __init__(self, workdir: pathlib.Path, first_step: int):
        """Opens the files; records past `first_step`, of steps about to be repeated, are dropped."""
        from tensorboardX import SummaryWriter

        self._path = workdir / "metrics.jsonl"
        self._writes = cluster.is_first()
        self.records = [r for r in read_records(workdir) if r["step"] <= first_step]
        if self._writes:
            lines = "".join(json.dumps(record) + "\n" for record in self.records)
            replace_text(self._path, lines)
            # An endless queue: a full one would block for ever once the thread that empties it has failed.
            events = workdir / "events"
            self._events = SummaryWriter(str(events), max_queue=0, purge_step=first_step + 1)

    def write(self, record: Record) -> None:
        """Writes one record: "step", "stage", "stage_step", "split" and scalars."""
        self.records.append(record)
        if not self._writes:
            return
        if not self._path.exists():
            raise UserError(
                f"{self._path} is gone: the folder of this run was emptied or moved while it ran; start it again in "
                "another folder, or where the old one now is"
            )
        try:
            with self._path.open("a") as file:
                file.write(json.dumps(record) + "\n")
            for name, value in record.items():
                if isinstance(value, float):
                    tag = f"{record['stage']}/{record['split']}/{name}"
                    self._events.add_scalar(tag, value, record["step"])
            self._events.flush()
        except OSError as error:  # a full disk names no file
            raise UserError(
                f"{self._path} and events/ beside it cannot be written (is the disk full?): {error}"
            ) from error

    def close(self) -> None:
        """Closes the event file; what it could not take, `write` has told."""
        if self._writes:
            with contextlib.suppress(OSError):
                self._events.close()


def read_records(workdir: pathlib.Path) -> list[Record]:
    """The records of `metrics.jsonl`; a line cut short by a crash is left out."""
    path = workdir / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    records = []
    for line in lines:
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return records


def average(metrics: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean of each metric over steps."""
    return {name: float(np.mean([m[name] for m in metrics])) for name in metrics[0]}


class Progress:
    """A line with the stage, the step, the loss, clips a second and the time left."""

    def __init__(self, stage: str, total: int, done: int, batch_size: int):
        self._stage, self._total, self._batch_size = stage, total, batch_size
        self._first, self._start = done, time.monotonic()
        self._mark = (done, self._start)

    def lap(self, done: int) -> float:
        """Clips a second since the last lap."""
        (before, then), now = self._mark, time.monotonic()
        self._mark = (done, now)
        return (done - before) * self._batch_size / max(now - then, 1e-9)

    def show(self, done: int, metrics: Mapping[str, float], clips_per_second: float) -> None:
        """Prints the line."""
        elapsed = time.monotonic() - self._start
        left = elapsed / max(done - self._first, 1) * (self._total - done)
        told = " ".join(f"{name} {metrics[name]:.4g}" for name in _headline(metrics))
        cluster.say(
            f"[{self._stage}] step {done}/{self._total}  {told}  {clips_per_second:.1f} clips/s  "
            f"{format_seconds(left)} left"
        )


def _headline(metrics: Mapping[str, float]) -> list[str]:
    return ["loss", *(name for name in metrics if name.endswith("top1"))]


def format_seconds(seconds: float) -> str:
    """For example "2h03m", "4m10s" or "8s"."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes:02}m"
    return f"{minutes}m{seconds:02}s" if minutes else f"{seconds}s"
