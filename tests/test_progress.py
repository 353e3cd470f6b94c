"""Progress: lines elsewhere than on a terminal, a bar there."""

import pytest

from hcml_jax import cluster, progress
from hcml_jax.progress import Progress


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass only when told."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_elsewhere_it_tells_at_once_then_every_few_seconds_and_at_the_end(clock, capsys):
    with Progress("Work", 100, "clips", done=10) as work:
        for _ in range(6):
            clock[0] += 2.0
            work.add(5, told="loss 1.5")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "Work: 10/100 clips"
    assert lines[1:] == [
        "Work: 25/100 clips, 2.5 clips/s, 00:30 left, loss 1.5",
        "Work: 40/100 clips, 2.5 clips/s, 00:24 left, loss 1.5",
        "Work: 40/100 clips, 2.5 clips/s, 00:24 left, loss 1.5",
    ]


def test_the_time_left_is_told_once_something_is_done(clock, capsys):
    with Progress("Work", 100, "clips") as work:
        clock[0] += 9.0
        work.add(0)
    assert capsys.readouterr().err.splitlines() == ["Work: 0/100 clips"] * 2


def test_a_terminal_shows_a_bar_that_makes_room_for_lines(capsys, monkeypatch):
    monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: True, raising=False)
    with Progress("Work", 4, "clips") as work:
        work.add(2)
        cluster.say("a line of its own")
        work.add(2)
    told = capsys.readouterr().err
    assert "a line of its own\n" in told
    assert "100%" in told and "4/4" in told
