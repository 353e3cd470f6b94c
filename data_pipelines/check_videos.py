"""Checks a folder of videos, or the videos of a table, before they are trained on.

`python -m data_pipelines.check_videos FOLDER` decodes every video to its end, each in a process that may hang or die,
and writes to `FOLDER/checked`: `report.csv`, what was found of each; and `table.csv`, the table without the bad ones,
in which others end where they can still be read. Train with `--config.data.root=FOLDER
--config.data.table=checked/table.csv`. What has been checked is remembered in `files.json` until the file changes.
"""

import argparse
import csv
import math
import os
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

from data_pipelines.errors import DataError
from data_pipelines.isolated import Failed, Isolated
from data_pipelines.memory import FileMemory
from data_pipelines.table import Row, read_table, write_table
from data_pipelines.verdict import BAD, VERDICTS, Verdict, judge
from hcml_jax.config import ConfigError, UserError
from hcml_jax.files import new_file
from hcml_jax.progress import Progress

VERSION = 1  # of what `judge` finds: raise it when it finds something else
SAVED_EVERY = 500  # files
LISTED = 20  # bad videos that are printed


def check(paths: Sequence[Path], workers: int, timeout: float, memory: Path | None = None) -> dict[Path, Verdict]:
    """The verdict on each video.

    Args:
      paths: video files.
      workers: processes.
      timeout: seconds that one may take.
      memory: JSON file that remembers verdicts; None: nothing is remembered.
    """
    known, found = FileMemory(memory, VERSION), {}
    for path in dict.fromkeys(paths):
        if (values := known.recall(path)) is not None:
            found[path] = Verdict(*values)
    new = [path for path in dict.fromkeys(paths) if path not in found]
    with (
        Progress("Checking videos", len(found) + len(new), "files", done=len(found)) as progress,
        Isolated(judge, min(workers, max(len(new), 1)), timeout) as isolated,
    ):
        try:
            for path, result in zip(new, isolated.map(new), strict=True):
                if isinstance(result, Failed):  # another time it may not
                    found[path] = Verdict(BAD, f"{path}: {result.reason}")
                else:
                    found[path] = result
                    known.keep(path, result)
                progress.add()
                if len(found) % SAVED_EVERY == 0:
                    known.save()
        finally:
            known.save()
    return found


def clean(rows: Sequence[Row], verdicts: Mapping[Path, Verdict]) -> list[Row]:
    """The rows whose videos are not bad, up to where these can be read."""
    usable = [row for row in rows if verdicts[row.path].verdict != BAD]
    kept = [row._replace(end=min(row.end, verdicts[row.path].end)) for row in usable]
    return [row for row in kept if row.start < row.end]


def main(arguments: Sequence[str] | None = None) -> None:
    """Check, write both tables, and list the bad videos."""
    given = _parser().parse_args(arguments)
    out = given.out or given.root / "checked"
    try:
        if find_spec("av") is None:
            raise DataError("reading videos needs PyAV: pip install 'hcml_jax[data]'")
        if given.workers < 1 or given.timeout <= 0:
            raise ConfigError("--workers must be 1 or more, --timeout above 0")
        rows = read_table(given.root, given.table, exists=lambda path: True)  # what is not there is bad
        out.mkdir(parents=True, exist_ok=True)
        verdicts = check([row.path for row in rows], given.workers, given.timeout, out / "files.json")
        _report(out / "report.csv", verdicts)
        left = clean(rows, verdicts)
        if not left:
            raise DataError(f"{given.root}: not one video can be used; {out / 'report.csv'} says why")
        write_table(out / "table.csv", left, given.root)
    except (UserError, OSError) as error:
        sys.exit(f"{type(error).__name__}: {error}")
    except KeyboardInterrupt:
        sys.exit(f"interrupted; what has been checked is remembered in {out}")
    bad = [verdict.reason for verdict in verdicts.values() if verdict.verdict == BAD]
    print("".join(f"bad: {reason}\n" for reason in bad[:LISTED]), end="", file=sys.stderr)
    counts = Counter(verdict.verdict for verdict in verdicts.values())
    told = ", ".join(f"{counts[verdict]} {verdict}" for verdict in VERDICTS)
    print(f"{told}; {len(left)} of {len(rows)} rows are left in {out / 'table.csv'}")
    sys.exit(1 if bad else 0)


def _report(path: Path, verdicts: Mapping[Path, Verdict]) -> None:
    with new_file(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("path", "verdict", "reason", "frames", "height", "width", "fps", "codec", "end", "bytes"))
        for video, verdict in verdicts.items():
            size = video.stat().st_size if video.exists() else 0
            end = "" if verdict.end == math.inf else f"{verdict.end:.3f}"
            writer.writerow((video, *verdict[:5], f"{verdict.fps:.6g}", verdict.codec, end, size))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m data_pipelines.check_videos", description=__doc__)
    parser.add_argument("root", type=Path, help="folder of videos, as config.data.root")
    parser.add_argument("--table", default="", help="as config.data.table")
    parser.add_argument("--out", type=Path, help="the folder to write; FOLDER/checked if not given")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--timeout", type=float, default=300.0, help="seconds that a video may take")
    return parser


if __name__ == "__main__":
    main()
