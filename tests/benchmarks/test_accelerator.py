"""The tables that wait for a GPU, in miniature: every part, resumed, within its budget, whatever fails."""

import json
import pathlib
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
# A table whose rows fail in every way: an error, one program of two, a crash, no end.
BROKEN = """
import functools, os, sys, time
sys.path.insert(0, "benchmarks")
import jax.numpy as jnp
import rows

def fail():
    raise MemoryError("too large")

def one_of_two(rounds):
    works = lambda: (lambda: jnp.zeros(1), {"compile": 0.0})
    return rows.timed({"fails": fail, "works": works}, rounds)

def parts(folder, small):
    measures = {
        "error": lambda rounds: fail(), "half": one_of_two, "crash": lambda rounds: os.abort(),
        "hang": lambda rounds: time.sleep(100), "last": lambda rounds: {"programs": {}},
    }
    cases = [rows.Case((name,), "jax", measure) for name, measure in measures.items()]
    return {"broken": rows.Part(("name", "s"), cases, lambda ours, _: [rows.show(rows.look(ours, "works"))])}

rows.LIMIT = 4
rows.main(parts, "")
"""
PARTS = ("matrix_rate", "steps", "cost_volume", "contrast", "convolutions")


def measure(folder, *flags):
    command = [sys.executable, "benchmarks/accelerator.py", f"--out={folder}", "--small", *flags]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def read_rows(folder, part):
    return [json.loads(line) for line in (folder / f"{part}.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    folder = tmp_path_factory.mktemp("accelerator")
    measure(folder)
    return folder


def test_every_part_has_rows_and_a_table(measured):
    tables = (measured / "tables.md").read_text()
    for part in PARTS:
        assert f"## {part}\n" in tables
        ours = [row for row in read_rows(measured, part) if row["name"].endswith("jax")]
        assert ours
        for row in ours:
            assert row["device"] == "cpu" and row["software"].startswith("jax ")
            assert all(p["seconds"] > 0 for p in row["programs"].values() if "failed" not in p)
            assert any("seconds" in program for program in row["programs"].values())
    assert "Left:" not in tables


def test_what_fails_is_recorded_and_ends_nothing(measured):
    """Where PyTorch is missing, its rows say so; where it is there, they are measured."""
    theirs = [row for row in read_rows(measured, "steps") if row["name"].endswith("PyTorch")]
    assert theirs and all("failed" in row or "programs" in row for row in theirs)
    failed = [row["failed"] for row in theirs if "failed" in row]
    assert all(f"\n{why}: " in (measured / "tables.md").read_text() for why in failed)


def test_a_row_that_fails_costs_itself_alone(tmp_path):
    (tmp_path / "broken.py").write_text(BROKEN)
    command = [sys.executable, tmp_path / "broken.py", f"--out={tmp_path}", "--small", "--budget=40"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = {row["name"].removesuffix(", jax"): row for row in read_rows(tmp_path, "broken")}
    assert list(rows) == ["error", "half", "crash", "hang", "last"]
    assert rows["error"]["failed"] == "MemoryError: too large"
    assert rows["half"]["programs"]["fails"] == {"failed": "MemoryError: too large"}
    assert rows["half"]["programs"]["works"]["seconds"] > 0
    assert "status -6" in rows["crash"]["failed"] and "status 1" in rows["hang"]["failed"]
    assert "failed" not in rows["last"]
    tables = (tmp_path / "tables.md").read_text()
    assert "\nMemoryError: too large: error, jax; half, jax (fails)." in tables


def test_rows_are_measured_once_and_a_budget_leaves_the_others(measured, tmp_path):
    before = {p.name: p.read_text() for p in measured.glob("*.jsonl")}
    assert "0 of 4 rows left" in measure(measured)
    assert {p.name: p.read_text() for p in measured.glob("*.jsonl")} == before
    shutil.copytree(measured, tmp_path / "part")
    rows = (tmp_path / "part" / "contrast.jsonl").read_text()
    (tmp_path / "part" / "contrast.jsonl").unlink()
    told = measure(tmp_path / "part", "--parts", "contrast", "--budget", "0")
    assert "contrast: 1 of 1 rows left\n  2^6, jax" in told
    assert "Left: 2^6, jax." in (tmp_path / "part" / "tables.md").read_text()
    measure(tmp_path / "part", "--parts", "contrast")
    names = [json.loads(text)["name"] for text in (rows, (tmp_path / "part" / "contrast.jsonl").read_text())]
    assert names[0] == names[1]
