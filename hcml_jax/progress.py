"""How far long work is: a bar on a terminal, elsewhere a line every few seconds."""

import sys
import time

from tqdm import tqdm

from hcml_jax import cluster

INTERVAL = 5.0  # seconds between lines


class Progress:
    """Counts finished items, in the first process alone; tells at once that the work begins.

    Args:
      name: what the work is.
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
        """Counts `count` more finished items; `told` is what else to say from now on, for example a loss."""
        self._done += count
        self._told = told or self._told
        if self._bar is not None:
            self._bar.set_postfix_str(self._told, refresh=False)
            self._bar.update(count)
        elif time.monotonic() - self._last >= INTERVAL:
            self._last = time.monotonic()
            cluster.say(self._line())

    def close(self) -> None:
        """Ends the bar, or tells how far the work came."""
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
