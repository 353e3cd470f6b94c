"""What is known of files, remembered as long as they do not change."""

import json
from pathlib import Path
from typing import Any

from hcml_jax.files import replace_text


class FileMemory:
    """A JSON file of what was found out about files; what it says of a file that has changed since is forgotten.

    Args:
      file: where it is kept; None: nothing is remembered beyond this process.
      version: of what is found out; a memory of another version is empty.
    """

    def __init__(self, file: Path | None, version: int):
        self._file, self._version, self._stamps = file, version, {}
        self._known = self._read()

    def recall(self, path: Path) -> Any | None:
        """What is known of a file, as JSON keeps it; None if nothing is."""
        entry = self._known.get(str(path.absolute()))
        return entry["found"] if entry and entry["stamp"] == self._stamp(path) else None

    def keep(self, path: Path, found: Any) -> None:
        """Remembers what was found of a file since it was last asked for; `save` writes it."""
        self._known[str(path.absolute())] = {"stamp": self._stamp(path), "found": found}

    def save(self) -> None:
        """Writes the file."""
        if self._file is not None:
            replace_text(self._file, json.dumps({"version": self._version, "files": self._known}))

    def _stamp(self, path: Path) -> list[int] | None:
        """Size and time of change when it was first asked for; None if the file is gone."""
        if path not in self._stamps:
            try:
                status = path.stat()
                self._stamps[path] = [status.st_size, status.st_mtime_ns]
            except OSError:
                self._stamps[path] = None
        return self._stamps[path]

    def _read(self) -> dict[str, Any]:
        try:
            found = json.loads(self._file.read_text()) if self._file else {}
            return found["files"] if found["version"] == self._version else {}
        except (OSError, ValueError, KeyError, TypeError):  # none yet, or not ours: look again
            return {}
