"""How far long work is: a bar on a terminal, elsewhere a line every few seconds."""

import sys
import time

from tqdm import tqdm

from hcml_jax import cluster

INTERVAL = 5.0  # seconds between lines


class Progress:
    """Counter of finished items, shown only by the first process; it is shown from the start of the work.

    Args:
      name: name of the work.
      total: number of items.
      unit: what the items are.
      done: how many of them were finished before.
    """

    def __init__(self, name: str, total: int, unit: str, done: int = 0):
        self._name, self._total, self._unit = name, total, unit
        self._first, self._done, self._told = done, done, ""
        self._start = self._last = time.monotonic()
        self._bar = None
        if cluster.is_first() and sys.stderr.isatty():
            self._bar = tqdm(total=total, initial=done, desc=name, unit=f" {unit}", dynamic_ncols=True)
        else:
            cluster.say(self._line())

    def add(self, count: int = 1, told: str = "") -> None:
        """Add `count` finished items; `told` is further text to show from now on, for example a loss."""
        self._done += count
        self._told = told or self._told
        if self._bar is not None:
            self._bar.set_postfix_str(self._told, refresh=False)
            self._bar.update(count)
        elif time.monotonic() - self._last >= INTERVAL:
            self._last = time.monotonic()
            cluster.say(self._line())

    def close(self) -> None:
        """Close the bar, or print the final progress."""
        if self._bar is not None:
            self._bar.close()
        elif self._done > self._first:
            cluster.say(self._line())

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *error) -> None:
        self.close()

    def _line(self) -> str:
        line, done = (f"{self._name}: {self._done}/{self._total} {self._unit}", self._done - self._first)
        if done:
            rate = done / max(time.monotonic() - self._start, 1e-9)
            left = tqdm.format_interval(max(self._total - self._done, 0) / rate)
            line += f", {rate:.3g} {self._unit}/s, {left} left"
        return f"{line}, {self._told}" if self._told else line
