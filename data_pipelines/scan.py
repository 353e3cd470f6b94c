"""Looks at every video once before training, side by side, and remembers what it found."""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from data_pipelines.errors import VideoError
from data_pipelines.memory import FileMemory
from data_pipelines.video import VideoInfo, probe
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
    known, found, new = FileMemory(memory, VERSION), {}, []
    for path in dict.fromkeys(paths):  # sorting paths would take longer than all the rest
        values = known.recall(path)
        if values is None:
            new.append(path)
        else:
            found[path] = _info(values)
    if not new:
        return found
    progress = Progress("Looking at videos", len(found) + len(new), "files", done=len(found))
    pool = ThreadPoolExecutor(workers)
    try:
        for path, result in zip(new, pool.map(_probe, new), strict=True):
            found[path] = result
            if isinstance(result, VideoInfo):
                known.keep(path, result)
            progress.add()
    finally:  # what has been seen is remembered, also after an interruption
        pool.shutdown(cancel_futures=True)
        progress.close()
        known.save()
    return found


def _probe(path: Path) -> VideoInfo | VideoError:
    try:
        return probe(path)
    except VideoError as error:
        return VideoError(str(error))  # its traceback would keep the decoder


def _info(values: list) -> VideoInfo:
    """A VideoInfo read back from JSON."""
    *basic, keyframes, first_time, step = values
    return VideoInfo(*basic, tuple(map(tuple, keyframes)), first_time, step)
