"""Writes the tables of a published dataset: `python -m data_pipelines.annotate ucf101 DIR`.

`DIR` holds the dataset's annotations, as they are published, and its videos, in any subfolders. Nothing is downloaded.
Datasets with several folds get a table for each (`fold1.csv` ...), others `table.csv`. Train with
`--config.data.root=DIR --config.data.table=fold1.csv`. Videos that are annotated and not there are counted, and listed
in `missing.txt`.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from data_pipelines.datasets import DATASETS
from data_pipelines.table import write_table
from hcml_jax.config import UserError
from hcml_jax.files import replace_text


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the tables, and print how many videos of which split they name."""
    parser = argparse.ArgumentParser(prog="python -m data_pipelines.annotate", description=__doc__)
    parser.add_argument("dataset", choices=list(DATASETS))
    parser.add_argument("folder", type=Path, help="annotations and videos")
    parser.add_argument("--out", type=Path, help="folder of the tables; DIR if not given")
    given = parser.parse_args(arguments)
    out = given.out or given.folder
    try:
        found = DATASETS[given.dataset](given.folder)
        out.mkdir(parents=True, exist_ok=True)
        for name, rows in found.tables.items():
            write_table(out / f"{name}.csv", rows, given.folder)
            counts = Counter(row.split for row in rows)
            told = ", ".join(f"{count} {split}" for split, count in counts.items())
            print(f"{out / name}.csv: {told}, of {len({row.label for row in rows if row.label})} classes")
        if found.missing:
            replace_text(out / "missing.txt", "".join(f"{video}\n" for video in found.missing))
            print(f"{len(found.missing)} annotated videos are not there: {out / 'missing.txt'}", file=sys.stderr)
        for note in found.notes:
            print(f"note: {note}", file=sys.stderr)
    except (UserError, OSError, ValueError, KeyError) as error:
        sys.exit(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
