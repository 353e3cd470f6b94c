"""Runs side by side: `python -m hcml_jax.evaluation.compare runs/sprites runs/supervised`.

For two runs on the same videos, the difference of each score is tested with paired videos. For more runs, the mean is
shown, as for the splits of one dataset.
"""

import json
import pathlib
import re
import statistics
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict

from hcml_jax.evaluation.intervals import paired_difference
from hcml_jax.training.workdir import Workdir

SHOWN = ("untrained.knn.", "untrained.linear.", "baseline.knn.", "baseline.linear.")
DETAILS = re.compile(
    r"knn_|efficacy|readout|by_level|\.knn\.|\.linear\.|\.families\.|checkpoint|intervals\.|classes\.|gains\.|retrieval|"
    r"labels\.|flow\.(l1|psnr|ssim)|cost\."
)


def read_results(workdir: str | pathlib.Path) -> dict[str, Any]:
    """The `results.json` of a run.

    Raises:
      FileNotFoundError: if the run has not been evaluated.
    """
    path = Workdir(pathlib.Path(workdir)).results
    if not path.exists():
        raise FileNotFoundError(f"{path} is not there: evaluate the run first")
    return json.loads(path.read_text())


def table(runs: Mapping[str, Mapping[str, Any]], more: Mapping[str, Mapping[str, str]] | None = None) -> str:
    """A text table: one row a headline figure (a dotted name in `results.json`), one column a run.

    Args:
      runs: their names and results.
      more: further columns: a title -> figure -> cell.
    """
    flat = {name: _headline(results) for name, results in runs.items()}
    figures = list(dict.fromkeys(figure for run in flat.values() for figure in run))
    columns = {name: {f: f"{value:.3f}" for f, value in run.items()} for name, run in flat.items()} | (more or {})
    rows = [["", *columns], *([f, *(column.get(f, "-") for column in columns.values())] for f in figures)]
    first, *others = (max(map(len, column)) for column in zip(*rows, strict=True))
    return "\n".join(
        "  ".join([name.ljust(first), *(cell.rjust(width) for cell, width in zip(cells, others, strict=True))])
        for name, *cells in rows
    )


def differences(one: str, other: str) -> dict[str, dict[str, str]]:
    """Columns for `table`: how much the second run's scores lie above the first one's, on the videos of both.

    The interval is from a bootstrap over videos, p from a paired permutation test. Empty if a run has no
    `per_video.npz` or they share no video.
    """
    paths = [Workdir(pathlib.Path(folder)).per_video for folder in (one, other)]
    if not all(path.exists() for path in paths):
        return {}
    with np.load(paths[0]) as first, np.load(paths[1]) as second:
        _, here, there = np.intersect1d(first["video"], second["video"], return_indices=True)
        columns = {"difference": {}, "95%": {}, "p": {}}
        shared = [figure for figure in sorted(set(first) & set(second) - {"video"}) if _is_headline(figure)]
        for figure in shared if len(here) else ():
            given = second[figure][there].astype(float), first[figure][here].astype(float)
            if np.isnan(given[0] - given[1]).all():
                continue
            difference, (low, high), p = paired_difference(*given)
            cells = f"{difference:+.3f}", f"{low:+.3f} to {high:+.3f}", f"{p:.4f}"
            for column, cell in zip(columns.values(), cells, strict=True):
                column[figure] = cell
    return columns


def means(runs: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, str]]:
    """A column for `table`: the mean of the figures that all runs have."""
    flat = [_headline(results) for results in runs.values()]
    shared = [figure for figure in flat[0] if all(figure in run for run in flat)]
    return {"mean": {figure: f"{statistics.fmean(run[figure] for run in flat):.3f}" for figure in shared}}


def _headline(results: Mapping[str, Any]) -> dict[str, float]:
    """The headline figures; `results.json` also has the details."""
    flat = {name: value for name, value in flatten_dict(results, sep=".").items() if isinstance(value, int | float)}
    return {name: value for name, value in flat.items() if _is_headline(name)}


def _is_headline(name: str) -> bool:
    return name.startswith(SHOWN) or not DETAILS.search(name)


def main(folders: Sequence[str]) -> None:
    """Prints the table of the given workdirs."""
    if not folders:
        sys.exit("name one workdir or more")
    try:
        runs = {folder: read_results(folder) for folder in folders}
    except FileNotFoundError as error:
        sys.exit(str(error))
    more = differences(*folders) if len(folders) == 2 else means(runs) if len(folders) > 2 else {}
    print(table(runs, more))


if __name__ == "__main__":
    main(sys.argv[1:])
