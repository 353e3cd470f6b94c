"""Calls in processes that may hang or die."""

import os
import signal
import time

import pytest

from data_pipelines.isolated import Failed, Isolated


class OddError(Exception):
    """Cannot be unpickled: pickle calls it with one argument."""

    def __init__(self, one, two):
        super().__init__(f"{one} and {two}")


class Unknown:
    """Fails where it is unpickled."""

    def __reduce__(self):
        return int, ("no number",)


def behave(value):
    """Dies, hangs, raises or doubles."""
    if value == "die":
        os.kill(os.getpid(), signal.SIGSEGV)
    if value == "leave":
        os._exit(3)
    if value == "hang":
        time.sleep(60)
    if value == "odd":
        raise OddError(7, 8)
    if value == "raise":
        raise ValueError("as it was told")
    return 2 * value


def test_what_hangs_or_dies_is_said_and_others_go_on():
    with Isolated(behave, workers=2, timeout=4) as isolated:
        found = list(isolated.map([1, "die", 2, "hang", 3, "leave", 4, 5]))
    failed = [
        Failed("its process died (SIGSEGV)"),
        Failed("took more than 4 s"),
        Failed("its process died (exit code 3)"),
    ]
    assert found == [2, failed[0], 4, failed[1], 6, failed[2], 8, 10]


def test_an_exception_is_told():
    """Also one that cannot be pickled."""
    with Isolated(behave, workers=1, timeout=60) as isolated:
        found = list(isolated.map([1, "raise", "odd", 2]))
    assert found == [2, Failed("ValueError: as it was told"), Failed("OddError: 7 and 8"), 4]


def test_a_process_that_cannot_start_ends_the_work():
    """It must not make every video a bad one."""
    with Isolated(Unknown(), workers=1, timeout=60) as isolated, pytest.raises(RuntimeError, match="cannot start"):
        list(isolated.map([1]))


def test_large_values_pass():
    with Isolated(behave, workers=1, timeout=60) as isolated:
        (found,) = isolated.map([b"x" * 10**7])
    assert len(found) == 2 * 10**7


def test_leaving_ends_what_is_under_way():
    start = time.monotonic()
    with Isolated(behave, workers=1, timeout=60) as isolated:
        results = isolated.map([1, "hang", 2])
        assert next(results) == 2
    assert time.monotonic() - start < 30
