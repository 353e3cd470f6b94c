"""Looks at every video once before training, side by side, and remembers what it found."""

import json
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from data_pipelines.errors import VideoError
from data_pipelines.video import VideoInfo, probe
from hcml_jax.files import replace_text
from hcml_jax.progress import Progress

VERSION = 4  # of what `probe` finds: raise it when it finds something else


def scan_videos(paths: Iterable[Path], workers: int, memory: Path | None = None) -> dict[Path, VideoInfo | VideoError]:
    """Probe each video, or use its cached result if its size and modification time are unchanged.

    Args:
      paths: video files.
      workers: threads.
      memory: JSON file that remembers the good videos; None: nothing is remembered.

    Returns:
      What `probe` found, or the VideoError that it raised, for each path.
    """
    paths = sorted(set(paths))
    known = _recall(memory)
    stamps = {path: _stamp(path) for path in paths}
    recalled = {path: known.get(str(path.absolute()), {}) for path in paths}
    new = [path for path in paths if recalled[path].get("stamp", ()) != stamps[path]]
    found = {path: _info(recalled[path]["info"]) for path in set(paths) - set(new)}
    if new:
        found |= _look(new, workers)
        if memory is not None:
            _remember(memory, known, stamps, found)
    return found


def _look(paths: list[Path], workers: int) -> dict[Path, VideoInfo | VideoError]:
    found = {}
    with Progress("Looking at videos", len(paths), "files") as progress, ThreadPoolExecutor(workers) as pool:
        for path, result in zip(paths, pool.map(_probe, paths), strict=True):
            found[path] = result
            progress.add()
    return found


def _probe(path: Path) -> VideoInfo | VideoError:
    try:
        return probe(path)
    except VideoError as error:
        return error


def _stamp(path: Path) -> list[int] | None:
    """Size and time of change of a file; None where it is gone."""
    try:
        status = path.stat()
    except OSError:
        return None
    return [status.st_size, status.st_mtime_ns]


def _info(values: list) -> VideoInfo:
    """A VideoInfo read back from JSON."""
    info = VideoInfo(*values)
    return info._replace(keyframes=tuple((frame, time) for frame, time in info.keyframes))


def _recall(memory: Path | None) -> dict:
    try:
        found = json.loads(memory.read_text()) if memory else {}
        return found["videos"] if found["version"] == VERSION else {}
    except (OSError, ValueError, KeyError, TypeError):  # none yet, or not ours: look again
        return {}


def _remember(memory: Path, known: dict, stamps: dict, found: dict) -> None:
    good = {path: info for path, info in found.items() if isinstance(info, VideoInfo)}
    entries = {str(path.absolute()): {"stamp": stamps[path], "info": info} for path, info in good.items()}
    replace_text(memory, json.dumps({"version": VERSION, "videos": known | entries}))
