"""Runs side by side: `python -m hcml_jax.evaluation.compare runs/sprites runs/supervised`."""

import json
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from flax.traverse_util import flatten_dict


def read_results(workdir: str | pathlib.Path) -> dict[str, Any]:
    """The `results.json` of a run.

    Raises:
      FileNotFoundError: if the run has not been evaluated.
    """
    path = pathlib.Path(workdir) / "results.json"
    if not path.exists():
        raise FileNotFoundError(f"{path} is not there: evaluate the run first")
    return json.loads(path.read_text())


def table(runs: Mapping[str, Mapping[str, Any]]) -> str:
    """A text table: one row a headline figure (a dotted name in `results.json`), one column a run."""
    flat = {name: _headline(flatten_dict(results, sep=".")) for name, results in runs.items()}
    figures = list(dict.fromkeys(f for run in flat.values() for f in run))
    width = max(map(len, figures), default=0)
    columns = [max(len(name), 8) for name in runs]
    lines = [_row("", runs, width, columns)]
    for figure in figures:
        values = (run.get(figure) for run in flat.values())
        cells = ["-" if value is None else f"{value:.3f}" for value in values]
        lines.append(_row(figure, cells, width, columns))
    return "\n".join(lines)


def _headline(flat: Mapping[str, float]) -> dict[str, float]:
    """Without what only a closer look needs: `results.json` has it."""
    details = ("knn_uncentred", "efficacy", "readout", "by_level", ".knn.", ".linear.", "checkpoint")
    shown = ("untrained.knn.", "untrained.linear.", "baseline.knn.", "baseline.linear.")
    return {
        name: value
        for name, value in flat.items()
        if name.startswith(shown) or not any(detail in name for detail in details)
    }


def _row(head: str, cells, width: int, columns: Sequence[int]) -> str:
    padded = (f"{cell:>{size}}" for cell, size in zip(cells, columns, strict=True))
    return f"{head:<{width}}  " + "  ".join(padded)


def main(folders: Sequence[str]) -> None:
    """Prints the table of the given workdirs."""
    if not folders:
        sys.exit("name one workdir or more")
    try:
        print(table({folder: read_results(folder) for folder in folders}))
    except FileNotFoundError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main(sys.argv[1:])
