"""The list of clips that were left out, in memory and in the run's folder."""

import json
import threading
from pathlib import Path

from data_pipelines.table import Row


class SkipLog:
    """Records each unusable row of the table once, also when a run is resumed; safe between threads.

    Args:
      file: JSON-lines file to append to, made when there is something to say; None: no file.
    """

    def __init__(self, file: Path | None):
        self._file = file
        self._lock = threading.Lock()
        self._entries: dict[int, str] = {}
        resumed = file is not None and file.is_file()
        self._written = set(file.read_text().splitlines()) if resumed else set()

    @property
    def entries(self) -> dict[int, str]:
        """Number of the row, from 0 -> reason, since this start."""
        with self._lock:
            return dict(self._entries)

    def add(self, row: Row, reason: str) -> None:
        """Records that `row` was left out for `reason`."""
        with self._lock:
            if row.index in self._entries:
                return
            self._entries[row.index] = reason
            line = json.dumps({"row": row.index + 1, "path": str(row.path), "reason": reason})
            if self._file is not None and line not in self._written:
                with self._file.open("a") as file:
                    file.write(line + "\n")
