"""Calls in processes that may hang or die: a broken video can take its decoder down with it."""

import multiprocessing
import queue
import signal
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from typing import Any, NamedTuple


class Failed(NamedTuple):
    """What became of a call that has no result.

    Attributes:
      reason: such as "took more than 60 s".
    """

    reason: str


class Isolated:
    """Calls of one function, each in one of several processes; a process that hangs or dies is replaced.

    Args:
      function: of a module, from a value that can be pickled to another.
      workers: how many processes there are.
      timeout: seconds that a call may take.
    """

    def __init__(self, function: Callable[[Any], Any], workers: int, timeout: float):
        self._idle: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
        self._all = [_Worker(function, timeout) for _ in range(workers)]
        for worker in self._all:
            self._idle.put(worker)
        self._pool = ThreadPoolExecutor(workers)

    def map(self, values: Iterable[Any]) -> Iterator[Any]:
        """The result of each value, in order: what the function returns, or `Failed`.

        Raises:
          Exception: whatever the function raised.
        """
        for result in self._pool.map(self._call, values):
            if isinstance(result, Exception):
                raise result
            yield result

    def __enter__(self) -> "Isolated":
        return self

    def __exit__(self, *error) -> None:
        for worker in self._all:
            worker.stop()
        self._pool.shutdown(cancel_futures=True)

    def _call(self, value: Any) -> Any:
        worker = self._idle.get()
        try:
            return worker.call(value)
        finally:
            self._idle.put(worker)


class _Worker:
    def __init__(self, function: Callable[[Any], Any], timeout: float):
        self._function, self._timeout, self._stopped = function, timeout, False
        self._process = self._connection = None

    def call(self, value: Any) -> Any:
        """The result, the exception, or `Failed`."""
        if self._stopped:
            return Failed("was stopped")
        if self._process is None:
            self._start()
        try:
            self._connection.send(value)
            if self._connection.poll(self._timeout):
                return self._connection.recv()
            reason = f"took more than {self._timeout:g} s"
        except (EOFError, OSError):
            self._process.join()
            reason = f"its process died ({_told(self._process.exitcode)})"
        self._end()
        return Failed(reason)

    def stop(self) -> None:
        """No more calls; one under way has `Failed`."""
        self._stopped = True
        self._end()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(self._function, theirs), daemon=True)
        self._process.start()
        theirs.close()

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.join()


def _serve(function: Callable[[Any], Any], connection: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent says when to end
    while True:
        try:
            value = connection.recv()
        except EOFError:
            return
        try:
            result = function(value)
        except Exception as error:
            result = error
        connection.send(result)


def _told(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"
