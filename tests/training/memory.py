"""Clips in memory in place of `data_pipelines`, and runs of the tiny method on them."""

import functools
import itertools
import types
from unittest import mock

from hcml_jax.training import loop
from hcml_jax.training.config import TrainingConfig
from tests.methods import tiny

CONFIG = TrainingConfig(batch_size=4, log_every=1, checkpoint_every=1, validation_split="test")


class Once:
    """Jitted steps of a method, for all runs on it: to trace them anew is most of what a small run takes."""

    def __init__(self, make):
        self._make, self._made = make, {}

    def __call__(self, method, stage, *given):
        # An optimizer follows from the method's stage: schedules here are in steps, whatever the clips and batches.
        key = id(method), stage.name, *(one for one in given if isinstance(one, int | loop.Layout))
        if key not in self._made:
            self._made[key] = method, self._make(method, stage, *given)  # kept, so that no other gets its id
        return self._made[key][1]


STEPS = {name: Once(getattr(loop, name)) for name in ("make_train_step", "make_validation_step")}


class Memory:
    """Eight random clips; the batch of a step is a function of the seed and the step."""

    classes = ("a", "b", "c")
    families = types.MappingProxyType({})
    splits = ("train", "test")
    clip_shape = tiny.CLIP_SHAPE
    flow_is_true = True

    def __init__(self, stop_after: int | None = None):
        """Raises KeyboardInterrupt after so many training batches, as a killed process would."""
        self._left = itertools.count() if stop_after is None else iter(range(stop_after))

    def num_clips(self, split, labelled_only=False):
        return 8

    def flow_fault(self, split):
        return "no flow"

    def complete(self, batch, reads):
        return batch

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
    with mock.patch.multiple(loop, **STEPS):
        loop.train(method or tiny_method(), data or Memory(), config, workdir, seed, start)


@functools.cache
def tiny_method():
    """One level, and the joint stage."""
    return tiny.hcml(levels=("reconstruction",))
