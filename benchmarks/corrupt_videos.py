"""Copies of good videos, changed at random: `python benchmarks/corrupt_videos.py --data DIR --workdir runs/corrupt`.

Each copy has bits flipped, is cut short, or has its header copied over another part; which, a seed determines. All are
checked as `python -m data_pipelines.check_videos` does, and counted: none may hang or be missing. Then those that are
not bad are read as training reads them, in processes of their own: what their verdict calls readable must be readable.
"""

import argparse
import os
import pathlib
from collections import Counter

import numpy as np
from runs import call

from data_pipelines.check_videos import check
from data_pipelines.isolated import Failed, Isolated
from data_pipelines.table import video_files
from data_pipelines.verdict import BAD
from hcml_jax.config import UserError

CHANGES = "bits flipped", "cut short", "header copied"


def changed(content: bytes, kind: int, rng: np.random.Generator) -> bytes:
    """A file's content after the change `CHANGES[kind]`."""
    content = bytearray(content)
    if kind == 0:
        for place in rng.integers(len(content), size=rng.integers(1, 30)):
            content[place] ^= 1 << rng.integers(8)
    elif kind == 1:
        del content[rng.integers(len(content)) :]
    else:
        start, length = rng.integers(len(content)), rng.integers(8, 200)
        content[start : start + length] = content[:length]
    return bytes(content)


def read(given: tuple[pathlib.Path, int]) -> str:
    """Reads clips all over the first frames of a video; "" or what is wrong."""
    from data_pipelines.errors import VideoError
    from data_pipelines.video import probe, read_frames

    path, frames = given
    try:
        info = probe(path)
        for first in range(0, frames, 16):
            read_frames(path, range(first, min(first + 16, frames)), info)
    except VideoError as error:
        return str(error)
    return ""


def main() -> None:
    """Writes the copies, checks them, reads them, and prints what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=pathlib.Path, required=True, help="a folder of good videos")
    parser.add_argument("--workdir", type=pathlib.Path, required=True, help="where the copies are written")
    parser.add_argument("--copies", type=int, default=1000)
    parser.add_argument("--timeout", type=float, default=60.0, help="seconds that a copy may take")
    arguments = parser.parse_args()
    if arguments.workdir.exists():
        raise UserError(f"{arguments.workdir} is there already: name another")
    arguments.workdir.mkdir(parents=True)
    rng, videos, kinds = np.random.default_rng(0), video_files(arguments.data), {}
    for number in range(arguments.copies):
        video, kind = videos[number % len(videos)], int(rng.integers(len(CHANGES)))
        copy = arguments.workdir / f"{number}{video.suffix}"
        copy.write_bytes(changed(video.read_bytes(), kind, rng))
        kinds[copy] = CHANGES[kind]
    workers = os.cpu_count() or 1
    verdicts = check([*kinds], workers, arguments.timeout)
    usable = [(path, verdict.frames) for path, verdict in verdicts.items() if verdict.verdict != BAD]
    with Isolated(read, workers, arguments.timeout) as isolated:
        faults = dict(zip(usable, isolated.map(usable), strict=True))
    counts = Counter((kinds[path], verdict.verdict) for path, verdict in verdicts.items())
    for (kind, verdict), count in sorted(counts.items()):
        print(f"{kind}: {count} {verdict}")
    for (path, _), fault in faults.items():
        if fault:
            print(f"{path} could not be read: {fault.reason if isinstance(fault, Failed) else fault}")
    ends = [
        verdict.reason for verdict in verdicts.values() if "process died" in verdict.reason or "took" in verdict.reason
    ]
    print(f"{len(verdicts)} of {arguments.copies} judged, {len(ends)} by a process that ended: {ends}")


if __name__ == "__main__":
    call(main)
