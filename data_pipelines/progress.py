"""A line that says how far a long job is, how fast it goes and how long it will take."""

import sys
import time
from collections.abc import Callable

Report = Callable[[str], None]


def to_stderr(line: str) -> None:
    """Writes `line` to the standard error stream."""
    print(line, file=sys.stderr, flush=True)


class Progress:
    """Counts finished items; reports at most every `interval` seconds, first after one interval.

    Args:
      name: what the job is.
      total: number of items.
      unit: what the items are.
      report: called with each line.
      interval: seconds between lines.
    """

    def __init__(
        self, name: str, total: int, unit: str, report: Report = to_stderr, interval: float = 2.0
    ):
        self._name, self._total, self._unit = name, total, unit
        self._report, self._interval = report, interval
        self._done = 0
        self._start = self._last = time.monotonic()

    def add(self, count: int = 1) -> None:
        """Counts `count` more finished items."""
        self._done += count
        now = time.monotonic()
        if self._done and now - self._last >= self._interval:
            self._last = now
            self._report(self._line(now - self._start))

    def _line(self, seconds: float) -> str:
        rate = self._done / max(seconds, 1e-9)
        left = (self._total - self._done) / rate
        done = f"{self._done}/{self._total} {self._unit}"
        return f"{self._name}: {done}, {rate:.0f} {self._unit}/s, {left:.0f} s left"
