"""The tf.data graph: examples are read side by side, batched and fetched ahead.

The only module that imports tensorflow.
"""

import atexit
import os
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from functools import lru_cache

import numpy as np

from data_pipelines.config import DataConfig
from hcml_jax.batch import Batch

_IMPORTING = threading.Lock()


def batches(
    read: Callable[[int], Batch], numbers: tuple[int, int], batch_size: int, like: Batch, workers: int
) -> Iterator[Batch]:
    """Yields batches of the examples `read(number)` for each number in order.

    Args:
      read: makes an example, a `Batch` without its first axis; called from `workers` threads.
      numbers: (first, one past the last).
      batch_size: examples of a batch; must divide the number of examples.
      like: an example that defines shapes and types; fields that are None in it are None in a batch.
      workers: threads.

    Raises:
      whatever `read` raises.
    """
    tf = import_tensorflow()
    fields = {name: array for name, array in like._asdict().items() if array is not None}
    read = _Reader(read)

    def example(number):
        types = [array.dtype for array in fields.values()]
        values = tf.numpy_function(read, [number], types, stateful=False)
        pairs = zip(fields.items(), values, strict=True)
        return {name: tf.ensure_shape(value, array.shape) for (name, array), value in pairs}

    options = tf.data.Options()
    options.threading.private_threadpool_size = workers
    options.threading.max_intra_op_parallelism = 1
    options.autotune.enabled = False
    data = tf.data.Dataset.range(*numbers)
    data = data.map(example, num_parallel_calls=workers, deterministic=True)
    data = data.batch(batch_size, drop_remainder=True).prefetch(2).with_options(options)
    try:
        for batch in data.as_numpy_iterator():
            yield Batch(**batch)
    except tf.errors.OpError:
        raise read.failure or RuntimeError("tf.data stopped") from None


def num_workers(config: DataConfig) -> int:
    """Threads that read."""
    return config.workers or os.cpu_count() or 1


class _Reader:
    """Lists the arrays that `read` returns, keeps the first exception, and drains calls before Python exits.

    tensorflow waits for its threads, and those that call Python while it shuts down never return. So at exit calls
    return at once, with an old example that is never used, until tensorflow's buffers are full.
    """

    ending = False
    _under_way = 0
    _lock = threading.Lock()

    def __init__(self, read: Callable[[int], Batch]):
        self._read = read
        self._last: list[np.ndarray] | None = None
        self.failure: Exception | None = None

    def __call__(self, number: np.ndarray) -> list[np.ndarray]:
        _Reader._count(1)
        try:
            if _Reader.ending and self._last is not None:
                return self._last
            example = self._read(int(number))
            self._last = arrays = [array for array in example if array is not None]
            return arrays
        except Exception as error:
            self.failure = self.failure or error
            raise
        finally:
            _Reader._count(-1)

    @staticmethod
    def _count(change: int) -> None:
        with _Reader._lock:
            _Reader._under_way += change

    @staticmethod
    def run_out(settle: float = 0.1) -> None:
        """Waits until no call is under way nor follows."""
        _Reader.ending = True
        time.sleep(settle)
        while _Reader._under_way:
            time.sleep(settle)


def import_tensorflow():
    """Tensorflow, quiet, on the CPU, with few threads: JAX needs the rest. Threads may call it at once."""
    with _IMPORTING:
        return _import_tensorflow()


@lru_cache(maxsize=1)
def _import_tensorflow():
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import tensorflow as tf

    atexit.register(_Reader.run_out)
    try:
        tf.config.set_visible_devices([], "GPU")
        tf.config.threading.set_intra_op_parallelism_threads(1)
    except RuntimeError:  # somebody else has used tensorflow already
        pass
    return tf
