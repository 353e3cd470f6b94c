"""Asked to stop, a run saves where it is, between records too, and goes on to the same bits."""

import dataclasses
import signal

import jax
import numpy as np
import pytest

from hcml_jax.training.mesh import Layout, make_mesh
from hcml_jax.training.metrics import read_records
from hcml_jax.training.restore import positions
from hcml_jax.training.stopping import Stopped, StopSignals
from tests.methods import tiny
from tests.training.memory import CONFIG, Memory, run
from tests.training.test_loop import final_variables, without_speed

SPARSE = dataclasses.replace(CONFIG, log_every=3, checkpoint_every=6)


class Interrupting(Memory):
    """Raises a signal when batch `at` of the run is read, which is one batch ahead of the step."""

    def __init__(self, at, number):
        super().__init__()
        self._before, self._number = at, number

    def train_batches(self, batch_size, **options):
        for batch in super().train_batches(batch_size, **options):
            if not self._before:
                signal.raise_signal(self._number)
            self._before -= 1
            yield batch


@pytest.fixture(scope="module")
def method():
    stages = {"level0": tiny.schedule(steps=5), "joint": tiny.schedule(steps=5)}
    return tiny.hcml(levels=("reconstruction",), stages=stages)


@pytest.fixture(scope="module")
def uninterrupted(method, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run") / "whole"
    run(workdir, method, config=SPARSE)
    return workdir


@pytest.mark.parametrize(
    ("at", "number", "steps"), [(2, signal.SIGTERM, 2), (4, signal.SIGINT, 4), (6, signal.SIGTERM, 6)]
)
def test_a_run_asked_to_stop_saves_and_goes_on_to_the_same_bits(method, uninterrupted, tmp_path, at, number, steps):
    workdir = tmp_path / "run"
    with pytest.raises(Stopped, match=f"stopped and saved at step {steps}") as stopped:
        run(workdir, method, Interrupting(at, number), config=SPARSE)
    assert stopped.value.exit_code == 128 + number
    assert positions(method, workdir)["last"].step == steps
    run(workdir, method, config=SPARSE)
    expected, found = (final_variables(w, method) for w in (uninterrupted, workdir))
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    assert without_speed(read_records(workdir)) == without_speed(read_records(uninterrupted))


class InterruptingValidation(Memory):
    """Raises SIGTERM in the validation of that number, after the step has asked for signals."""

    def __init__(self, number):
        super().__init__()
        self._before = number

    def eval_batches(self, *arguments, **options):
        if not self._before:
            signal.raise_signal(signal.SIGTERM)
        self._before -= 1
        return super().eval_batches(*arguments, **options)


@pytest.mark.parametrize(("validation", "steps"), [(0, 5), (1, 10)], ids=["level0", "joint"])
def test_a_signal_at_the_end_of_a_stage_stops_before_what_follows(method, uninterrupted, tmp_path, validation, steps):
    workdir = tmp_path / "run"
    with pytest.raises(Stopped, match=f"stopped and saved at step {steps}"):
        run(workdir, method, InterruptingValidation(validation), config=SPARSE)
    assert positions(method, workdir)["last"].step == steps
    run(workdir, method, config=SPARSE)
    expected, found = (final_variables(w, method) for w in (uninterrupted, workdir))
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    assert without_speed(read_records(workdir)) == without_speed(read_records(uninterrupted))


def test_handlers_are_gone_afterwards_and_after_the_first_signal():
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    with StopSignals(Layout(make_mesh())) as signals:
        assert signals.poll() == 0
        signal.raise_signal(signal.SIGTERM)
        assert signals.poll() == signal.SIGTERM
        assert signal.getsignal(signal.SIGINT) == signal.SIG_DFL  # the second ends at once
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before
