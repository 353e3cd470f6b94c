"""Clips in memory in place of `data_pipelines`, and runs of the tiny method on them."""

import itertools
import types

from hcml_jax.training.config import TrainingConfig
from hcml_jax.training.loop import train
from tests.methods import tiny

CONFIG = TrainingConfig(batch_size=4, log_every=1, checkpoint_every=1, validation_split="test")


class Memory:
    """Eight random clips; the batch of a step is a function of the seed and the step."""

    classes = ("a", "b", "c")
    families = types.MappingProxyType({})
    splits = ("train", "test")
    clip_shape = tiny.CLIP_SHAPE

    def __init__(self, stop_after: int | None = None):
        """Raises KeyboardInterrupt after so many training batches, as a killed process would."""
        self._left = itertools.count() if stop_after is None else iter(range(stop_after))

    def num_clips(self, split, labelled_only=False):
        return 8

    def has_flow(self, split):
        return False

    def train_batches(self, batch_size, *, seed, stage, reads, first_step=0, **options):
        for step in itertools.count(first_step):
            if next(self._left, None) is None:
                raise KeyboardInterrupt
            yield tiny.batch(batch_size, seed=1000 * seed + step, reads=reads)

    def spread(self, split, count):
        return range(count)

    def eval_batches(self, split, batch_size, *, reads, **options):
        yield tiny.batch(batch_size, seed=77, reads=reads)


def run(workdir, method=None, data=None, config=CONFIG, seed=0, start=None):
    """Trains the tiny method in `workdir`."""
    workdir.mkdir(exist_ok=True)
    method = method or tiny.hcml(levels=("reconstruction",))
    train(method, data or Memory(), config, workdir, seed, start)
