"""Stopping when asked: SIGTERM (also a preemption notice) and SIGINT let the run save first."""

import functools
import os
import signal
import threading

import jax
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from hcml_jax.training.mesh import Layout

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stopped(Exception):  # noqa: N818 - no error
    """The run was asked to stop, and has saved where it is.

    Attributes:
      exit_code: 128 and the number of the signal, as shells have it.
    """

    def __init__(self, number: int, step: int):
        name = signal.Signals(number).name
        super().__init__(f"{name}: stopped and saved at step {step}; the same command goes on from there")
        self.exit_code = 128 + number


class StopSignals:
    """A context that catches signals, and lets the processes of a run agree on the step at which they stop.

    The second signal takes its default effect at once.
    """

    def __init__(self, layout: Layout):
        self._layout, self._number, self._pending = layout, 0, None
        self._former = {}

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():  # elsewhere Python allows no handlers
            self._former = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(self, *error):
        for number, handler in self._former.items():
            signal.signal(number, handler)

    def poll(self) -> int:
        """The signal on which all processes agree, or 0; every process calls this once a step.

        The answer is one step old, so that no device waits for it.
        """
        if jax.process_count() == 1:
            return self._number
        pending, self._pending = self._pending, _largest(self._layout)(self._flags())
        return 0 if pending is None else int(pending)

    def agree(self) -> int:
        """As `poll`, of what is known now."""
        self.poll()
        return self.poll()

    def _flags(self) -> jax.Array:
        sharding = NamedSharding(self._layout.mesh, P("data"))
        own = np.full(jax.local_device_count(), self._number, np.int32)
        return jax.make_array_from_process_local_data(sharding, own)

    def _note(self, number, frame) -> None:
        del frame
        self._number = number
        for each in SIGNALS:
            signal.signal(each, signal.SIG_DFL)
        line = f"{signal.Signals(number).name}: saving a checkpoint; a second signal ends at once\n"
        os.write(2, line.encode())  # `print` may be what the signal interrupted


@functools.cache
def _largest(layout: Layout):
    return jax.jit(lambda flags: flags.max(), out_shardings=layout.replicated)
