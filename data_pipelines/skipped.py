"""The list of videos that were left out, in memory and in the run's folder."""

import json
import threading
from pathlib import Path


class SkipLog:
    """Records each unusable video once, also when a run is resumed; safe between threads.

    Args:
      file: JSON-lines file to append to, made when there is something to say; None: no file.
    """

    def __init__(self, file: Path | None):
        self._file = file
        self._lock = threading.Lock()
        self._entries: dict[str, str] = {}
        resumed = file is not None and file.is_file()
        self._written = set(file.read_text().splitlines()) if resumed else set()

    @property
    def entries(self) -> dict[str, str]:
        """Path -> reason, for this session."""
        with self._lock:
            return dict(self._entries)

    def add(self, path: Path, reason: str) -> None:
        """Records that `path` was left out for `reason`."""
        with self._lock:
            if str(path) in self._entries:
                return
            self._entries[str(path)] = reason
            line = json.dumps({"path": str(path), "reason": reason})
            if self._file is not None and line not in self._written:
                with self._file.open("a") as file:
                    file.write(line + "\n")
