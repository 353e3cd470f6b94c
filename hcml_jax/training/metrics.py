"""What a run records: `metrics.jsonl` and TensorBoard events."""

import contextlib
import json
import pathlib
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
        """Close the event file; `write` has already reported its errors."""
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
