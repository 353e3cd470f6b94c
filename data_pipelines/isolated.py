"""Calls in processes that may hang or die: a broken video can take its decoder down with it."""

import contextlib
import multiprocessing
import queue
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

START = 120.0  # seconds that a process may take to start
_READY = "ready"


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
        """The result of each value, in order: what the function returns, or `Failed`, also if it raises.

        A call whose process dies is made once more, since it may have been killed for another's sake.

        Raises:
          RuntimeError: a process cannot start.
        """
        return self._pool.map(self._call, values)

    def __enter__(self) -> "Isolated":
        return self

    def __exit__(self, *error) -> None:
        for worker in self._all:
            worker.stop()
        self._pool.shutdown(cancel_futures=True)

    def _call(self, value: Any) -> Any:
        worker = self._idle.get()
        try:
            with contextlib.suppress(_DiedError):
                return worker.call(value)
            try:
                return worker.call(value)
            except _DiedError as died:
                return Failed(f"its process died ({died})")
        finally:
            self._idle.put(worker)


class _DiedError(Exception):
    """The process of a call died; how."""


class _Worker:
    def __init__(self, function: Callable[[Any], Any], timeout: float):
        self._function, self._timeout, self._stopped = function, timeout, False
        self._process = self._connection = None
        self._changing = threading.Lock()  # which process there is

    def call(self, value: Any) -> Any:
        """The result, or `Failed`; raises _DiedError."""
        with self._changing:
            if self._stopped:
                return Failed("was stopped")
            if self._process is None:
                self._start()
            process, connection = self._process, self._connection
        try:
            connection.send(value)
            if connection.poll(self._timeout):
                return connection.recv()
        except (EOFError, OSError):
            process.join()
            self._end()
            raise _DiedError(_told(process.exitcode)) from None
        self._end()
        return Failed(f"took more than {self._timeout:g} s")

    def stop(self) -> None:
        """No more calls; one under way fails."""
        with self._changing:
            self._stopped = True
            process = self._process
        if process is not None:
            process.kill()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        connection, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(self._function, theirs), daemon=True)
        process.start()
        theirs.close()
        try:
            ready = connection.poll(START) and connection.recv() == _READY
        except (EOFError, OSError):
            ready = False
        if not ready:
            process.kill()
            raise RuntimeError("a decoding process cannot start; a program that uses one needs a `__main__` guard")
        self._process, self._connection = process, connection

    def _end(self) -> None:
        with self._changing:
            process, connection = self._process, self._connection
            self._process = self._connection = None
        process.kill()
        process.join()
        connection.close()


def _serve(function: Callable[[Any], Any], connection: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent says when to end
    connection.send(_READY)
    while True:
        try:
            value = connection.recv()
        except EOFError:
            return
        try:
            result = function(value)
        except Exception as error:  # some cannot be pickled
            result = Failed(f"{type(error).__name__}: {error}")
        connection.send(result)


def _told(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"
