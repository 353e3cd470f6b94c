"""The tf.data graph: examples are read side by side, cropped, batched and fetched ahead.

The only module that imports tensorflow.
"""

import atexit
import os
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import NamedTuple

import numpy as np

_IMPORTING = threading.Lock()


class Example(NamedTuple):
    """One clip before it is cropped.

    Attributes:
      clip: uint8 `[T, h, w, 3]`, resized.
      corner: int32 `[2]`, (top, left) of the crop.
      label: int32 scalar.
      index: int32 scalar.
      valid: bool scalar.
      flow: float32 `[T-1, h', w', 2]`, in pixels of its own grid; empty where there is none.
    """

    clip: np.ndarray
    corner: np.ndarray
    label: np.ndarray
    index: np.ndarray
    valid: np.ndarray
    flow: np.ndarray


def batches(
    read: Callable[[int], Example],
    numbers: tuple[int, int],
    batch_size: int,
    *,
    crop: int,
    workers: int,
    keys: tuple[str, ...],
) -> Iterator[dict[str, np.ndarray]]:
    """Yields batches of the examples `read(number)` for each number in order.

    Args:
      read: makes an example; called from `workers` threads.
      numbers: (first, one past the last).
      batch_size: examples of a batch; must divide the number of examples.
      crop: side of the crop in pixels.
      workers: threads.
      keys: which of "clip", "label", "index", "valid", "flow" a batch holds.

    Raises:
      whatever `read` raises.
    """
    tf = import_tensorflow()
    read = _Reader(read)

    def example(number):
        values = tf.numpy_function(read, [number], _dtypes(tf), stateful=False)
        return _crop_example(tf, Example(*values), crop, keys)

    data = tf.data.Dataset.range(*numbers)
    data = data.map(example, num_parallel_calls=workers, deterministic=True)
    data = (
        data.batch(batch_size, drop_remainder=True).prefetch(2).with_options(_options(tf, workers))
    )
    iterator = data.as_numpy_iterator()
    while True:
        try:
            batch = next(iterator, None)
        except tf.errors.OpError:
            raise read.failure or RuntimeError("tf.data stopped") from None
        if batch is None:
            return
        yield batch


class _Reader:
    """Calls `read`, keeps the first exception, and lets calls run out before Python ends.

    tensorflow waits for its threads, and those that call Python while it shuts down never come
    back. So at exit calls return at once, with an old example that nobody will see, until
    tensorflow's buffers are full.
    """

    ending = False
    _under_way = 0
    _lock = threading.Lock()

    def __init__(self, read: Callable[[int], Example]):
        self._read = read
        self._last: Example | None = None
        self.failure: Exception | None = None

    def __call__(self, number: np.ndarray) -> Example:
        _Reader._count(1)
        try:
            if _Reader.ending and self._last is not None:
                return self._last
            self._last = example = self._read(int(number))
            return example
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


def _dtypes(tf) -> list:
    return [tf.uint8, tf.int32, tf.int32, tf.int32, tf.bool, tf.float32]


def _options(tf, workers: int):
    options = tf.data.Options()
    options.threading.private_threadpool_size = workers
    options.threading.max_intra_op_parallelism = 1
    options.autotune.enabled = False
    return options


def _crop_example(tf, example: Example, crop: int, keys: tuple[str, ...]) -> dict:
    size = tf.shape(example.clip)[1:3]
    entries = {
        "clip": _crop(tf, example.clip, example.corner, crop, 3),
        "label": tf.ensure_shape(example.label, []),
        "index": tf.ensure_shape(example.index, []),
        "valid": tf.ensure_shape(example.valid, []),
    }
    if "flow" in keys:
        flow = _resize_flow(tf, example.flow, size)
        entries["flow"] = _crop(tf, flow, example.corner, crop, 2)
    return {key: entries[key] for key in keys}


def _crop(tf, frames, corner, crop: int, channels: int):
    """Cuts `[T, crop, crop, channels]` out of `frames`."""
    top, left = corner[0], corner[1]
    frames = tf.ensure_shape(frames, [None, None, None, channels])
    return tf.ensure_shape(
        frames[:, top : top + crop, left : left + crop], [None, crop, crop, channels]
    )


def _resize_flow(tf, flow, size):
    """Flow on a grid of `size` (height, width), its values scaled to the new pixels."""
    flow = tf.ensure_shape(flow, [None, None, None, 2])
    scale = tf.cast(size, tf.float32) / tf.cast(tf.shape(flow)[1:3], tf.float32)
    return tf.image.resize(flow, size, antialias=True) * scale[::-1]
