"""How benchmarks time programs: compiled before, warmed up, and in turn."""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax

HOPELESS = 2.0  # seconds; a run that takes longer is not repeated
SHORT = 0.005  # seconds; shorter runs are timed several at a time, since waiting for a GPU takes a while itself
ROUNDS = (3, 100)  # least and most, if their number is not given


def compiled(jitted: Callable, *arguments: Any) -> tuple[Callable, dict[str, float]]:
    """The program of a jitted function for arguments of these shapes, the seconds that compiling took, and its memory.

    Bytes are the compiler's: "temporaries", and with arguments and outputs "bytes".
    """
    start = time.perf_counter()
    program = jitted.lower(*arguments).compile()
    facts = {"compile": time.perf_counter() - start}
    memory = program.memory_analysis()
    if memory is not None:
        held = memory.argument_size_in_bytes + memory.output_size_in_bytes
        facts["temporaries"] = memory.temp_size_in_bytes
        facts["bytes"] = held - memory.alias_size_in_bytes + memory.temp_size_in_bytes
    return program, facts


def once(run: Callable[[], Any], wait: Callable[[Any], Any] = jax.block_until_ready) -> float:
    """Seconds of a run after a warm-up run, or of that one if it takes very long."""
    first = _time(run, 1, wait)
    return first if first > 5 * HOPELESS else _time(run, 1, wait)


def medians(
    functions: Mapping[str, Callable[[], Any]],
    rounds: int | None = None,
    wait: Callable[[Any], Any] = jax.block_until_ready,
    known: Mapping[str, float] | None = None,
) -> dict[str, float]:
    """Median seconds of a run of each function; they take turns in every round, so that all have the same conditions.

    Args:
      functions: name -> function of one run.
      rounds: number of rounds; None: as many as fit in half a second, 3 at least.
      wait: waits for the result of a run, and thereby for the runs before it.
      known: name -> seconds of `once`, where they are known.
    """
    known = known or {name: once(run, wait) for name, run in functions.items()}
    repeats = {name: max(1, int(SHORT / s)) for name, s in known.items() if s < HOPELESS}
    if rounds is None:
        needed = sum(count * known[name] for name, count in repeats.items())
        rounds = min(max(int(0.5 / max(needed, SHORT)), ROUNDS[0]), ROUNDS[1])
    times = {name: [] for name in known}
    for _ in range(rounds):
        for name, count in repeats.items():
            times[name].append(_time(functions[name], count, wait))
    return {name: statistics.median(found or [known[name]]) for name, found in times.items()}


def _time(run: Callable[[], Any], count: int, wait: Callable[[Any], Any]) -> float:
    """Mean seconds per run, of `count` consecutive runs."""
    start = time.perf_counter()
    for _ in range(count):
        given = run()
    wait(given)
    return (time.perf_counter() - start) / count
