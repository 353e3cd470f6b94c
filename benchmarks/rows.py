"""Tables measured row by row: resumed where they stopped, within a budget, in processes that may fail.

Each row is a line of DIR/<part>.jsonl as soon as it is measured, and is not measured again (delete the line to repeat
it). If a process crashes, or takes too long for a row, only that row is lost.
"""

import argparse
import faulthandler
import functools
import gc
import itertools
import json
import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
from timing import medians, once

LIMIT = 300  # seconds of a row, after which its process ends

Row = Mapping[str, Any]


class Case(NamedTuple):
    """What makes a row.

    Attributes:
      line: the first cells of its line in the table.
      process: "jax" or "PyTorch": each has processes of its own, one at a time, since either takes the GPU's memory.
      measure: function from the number of rounds (`timing.medians`) to the row.
    """

    line: tuple[str, ...]
    process: str
    measure: Callable[[int | None], Row]

    @property
    def name(self) -> str:
        """What the row is called."""
        return ", ".join((*filter(None, self.line), self.process))


class Part(NamedTuple):
    """A table.

    Attributes:
      heads: heads of its columns.
      cases: its rows, in the order in which they are measured.
      cells: function from the rows of jax and of PyTorch (None: not measured) to the remaining cells of a line.
    """

    heads: tuple[str, ...]
    cases: list[Case]
    cells: Callable[[Row | None, Row | None], list[str]]


# Makes the parts by name, from the folder and whether shapes are tiny.
Parts = Callable[[pathlib.Path, bool], dict[str, Part]]


def timed(makers: Mapping[str, Callable], rounds: int | None, wait=jax.block_until_ready) -> Row:
    """Compile and time programs; a failure of one does not affect the others.

    Args:
      makers: name -> function that returns a function of one run, and compile facts (`timing.compiled`).
      rounds, wait: as in `timing.medians`.
    """
    found, runs, known = {}, {}, {}
    for name, make in makers.items():
        try:
            runs[name], found[name] = make()
            known[name] = once(runs[name], wait)
        except ImportError:
            raise
        except Exception as error:
            runs.pop(name, None)
            found[name] = {"failed": reason(error)}
    for name, seconds in medians(runs, rounds, wait, known).items():
        found[name]["seconds"] = seconds
    return {"programs": found}


def reason(error: Exception) -> str:
    """What failed, on one line."""
    first = str(error).strip().split("\n")[0][:300]
    return first if isinstance(error, ImportError) else f"{type(error).__name__}: {first}"


def read_rows(folder: pathlib.Path, part: str) -> dict[str, Row]:
    """The rows of a part by name."""
    file = folder / f"{part}.jsonl"
    lines = file.read_text().splitlines() if file.exists() else []
    return {row["name"]: row for row in map(json.loads, lines)}


def _record(folder: pathlib.Path, part: str, case: Case, row: Row) -> None:
    with (folder / f"{part}.jsonl").open("a") as file:
        file.write(json.dumps({"name": case.name, **row}) + "\n")


def _left(folder: pathlib.Path, name: str, part: Part) -> list[Case]:
    measured = read_rows(folder, name)
    return [case for case in part.cases if case.name not in measured]


def main(parts: Parts, description: str) -> None:
    """Measures what is left, part by part, and writes DIR/tables.md."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--out", type=pathlib.Path, required=True, metavar="DIR")
    parser.add_argument("--parts", nargs="+", metavar="PART", help="default: all")
    parser.add_argument("--budget", type=float, default=540, help="seconds of a part (default 540)")
    parser.add_argument("--small", action="store_true", help="tiny shapes, one round, any device")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--until", type=float, help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    known = parts(options.out, options.small)
    if options.worker:
        _work(options, known[options.worker])
        return
    if unknown := set(options.parts or ()) - set(known):
        parser.error(f"--parts: {', '.join(unknown)}: expected some of {', '.join(known)}")
    for name in options.parts or known:
        _run(options, name, known[name])
        write_tables(options.out, parts(options.out, options.small))


def _run(options: argparse.Namespace, name: str, part: Part) -> None:
    """Measure the remaining rows of a part in other processes, within the budget."""
    if "XLA_PYTHON_CLIENT_MEM_FRACTION" not in os.environ:  # an older name for the same
        os.environ.setdefault("XLA_CLIENT_MEM_FRACTION", "0.9")
    until = time.time() + options.budget
    command = [sys.executable, *sys.argv, "--worker", name, "--until", str(until)]
    while (left := _left(options.out, name, part)) and time.time() < until:
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        begun = [case for case in left if case.name in done.stdout.splitlines()]
        if done.returncode and not begun:
            sys.exit(f"{name}: the process that measures failed before its first row")
        if done.returncode and begun[-1] in _left(options.out, name, part):
            ended = f"its process ended with status {done.returncode} (a row has {LIMIT} s)"
            _record(options.out, name, begun[-1], {"failed": ended})
    names = "".join(f"\n  {case.name}" for case in left)
    print(f"{name}: {len(left)} of {len(part.cases)} rows left{names}", flush=True)


def _work(options: argparse.Namespace, part: Part) -> None:
    """Measure rows of the kind of process that is next; after a failed row a new process continues."""
    left = _left(options.out, options.worker, part)
    process, rounds = left[0].process, 1 if options.small else None
    if process == "jax" and not options.small:
        if jax.default_backend() == "cpu":
            sys.exit("jax finds no GPU: install jax[cuda12] or jax[cuda13], or try with --small")
        jax.config.update("jax_enable_compilation_cache", False)  # compiling is measured
    for case in itertools.takewhile(lambda case: case.process == process, left):
        if time.time() > options.until:
            return
        print(case.name, flush=True)  # so that who started this knows whose fault it is
        row = _measure(case, rounds, options.small)
        _record(options.out, options.worker, case, row)
        print(f"{options.worker}: {case.name}: {row['took']:.0f} s", file=sys.stderr, flush=True)
        # An error may have broken the device's context, unless it is only that a package is missing.
        if list(_failures(row)) and "missing" not in row:
            return
        _release()


def _measure(case: Case, rounds: int | None, small: bool) -> Row:
    faulthandler.dump_traceback_later(LIMIT, exit=True)
    start, row = time.perf_counter(), {}
    try:
        row = _machine(case.process, small)
        row |= case.measure(rounds)
    except Exception as error:
        row |= {"failed": reason(error)}
        if isinstance(error, ImportError):
            row["missing"] = error.name
    faulthandler.cancel_dump_traceback_later()
    return row | {"took": time.perf_counter() - start}


def _machine(process: str, small: bool) -> dict[str, str]:
    """The device and the versions that a row is measured with."""
    if process == "jax":
        device, version = jax.devices()[0].device_kind, jax.__version__
    else:
        import torch

        if not torch.cuda.is_available() and not small:
            raise ImportError("PyTorch finds no GPU", name="torch.cuda")
        device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
        version = torch.__version__
    return {"device": device, "software": f"{process} {version}, driver {_driver()}"}


@functools.cache
def _driver() -> str:
    """The version of NVIDIA's driver."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.check_output(command, text=True, timeout=30).split("\n")[0]
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def _release() -> None:
    """Frees what a row has left on the device."""
    gc.collect()
    if torch := sys.modules.get("torch"):
        torch.compiler.reset()
        torch.cuda.empty_cache()
    else:
        jax.clear_caches()


def write_tables(folder: pathlib.Path, parts: Mapping[str, Part]) -> None:
    """Writes DIR/tables.md from all rows."""
    tables = [_table(name, part, read_rows(folder, name)) for name, part in parts.items()]
    (folder / "tables.md").write_text("\n\n".join(tables) + "\n")


def _table(name: str, part: Part, rows: Mapping[str, Row]) -> str:
    """A part in Markdown: on what it was measured, its table, what is left, and what failed."""
    measured = [rows[case.name] for case in part.cases if case.name in rows]
    machines = {f"{row['device']} ({row['software']})": None for row in measured if "device" in row}
    lines = [f"## {name}", "", "; ".join(machines) or "not measured", ""]
    lines += [f"| {' | '.join(part.heads)} |", "|---" * len(part.heads) + "|"]
    for line in dict.fromkeys(case.line for case in part.cases):
        found = {case.process: rows.get(case.name) for case in part.cases if case.line == line}
        cells = part.cells(found.get("jax"), found.get("PyTorch"))
        lines.append(f"| {' | '.join((*line, *cells))} |")
    left = [case.name for case in part.cases if case.name not in rows]
    lines += ["", f"Left: {'; '.join(left)}."] if left else []
    failures: dict[str, list[str]] = {}
    for row in measured:
        for why, program in _failures(row):
            failures.setdefault(why, []).append(row["name"] + program)
    lines += [f"\n{why}: {'; '.join(names)}." for why, names in failures.items()]
    return "\n".join(lines)


def _failures(row: Row) -> Iterator[tuple[str, str]]:
    """Why a row, or which program of it, failed."""
    if "failed" in row:
        yield row["failed"], ""
    for name, program in row.get("programs", {}).items():
        if "failed" in program:
            yield program["failed"], f" ({name})"
        if "eager" in program:
            yield f"not compiled: {program['eager']}", f" ({name})"


def look(row: Row | None, name: str | None, key: str = "seconds") -> float | str:
    """A figure of a program, or of the row itself; or in words, why there is none."""
    if row is None:
        return "-"
    found = row if name is None or "failed" in row else row["programs"].get(name, {})
    failed = found.get("failed", "")
    return (failed if len(failed) < 30 else "failed") if failed else found.get(key, "-")


def over(a: float | str, b: float | str) -> float | str:
    """The quotient, or the words that stand for either."""
    words = [value for value in (b, a) if isinstance(value, str)]
    return words[0] if words else a / b


def show(*values: float | str, scale: float = 1.0) -> str:
    """Figures of three digits in one cell; words that are the same for all, once."""
    shown = [v if isinstance(v, str) else f"{float(f'{v * scale:.3g}'):,g}" for v in values]
    alike = len(set(shown)) == 1 and isinstance(values[0], str)
    return shown[0] if alike else ", ".join(shown)
