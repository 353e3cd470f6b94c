"""The loop: interrupted equals uninterrupted bit for bit, not finite stops, convergence ends a stage."""

import dataclasses
import errno
import json
import shutil
import types
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from orbax.checkpoint import v1 as ocp
from tensorboardX.event_file_writer import EventFileWriter

from hcml_jax.config import ConfigError, UserError
from hcml_jax.methods import build_method
from hcml_jax.methods.hcml import HCML
from hcml_jax.training import loop
from hcml_jax.training.checkpoints import CheckpointError, Checkpoints, Position
from hcml_jax.training.config import TrainingConfig
from hcml_jax.training.loop import TrainingError
from hcml_jax.training.mesh import Layout, make_mesh
from hcml_jax.training.metrics import read_records
from hcml_jax.training.restore import positions, restore
from hcml_jax.training.step import abstract_variables
from tests.methods import tiny
from tests.training.memory import CONFIG, Memory, run, tiny_method


def final_variables(workdir, method):
    abstract = abstract_variables(method, tiny.CLIP_SHAPE, Layout(make_mesh()))
    return restore(workdir, positions(method, workdir)["last"], abstract)


def without_speed(records):
    return [{k: v for k, v in r.items() if k != "clips_per_second"} for r in records]


@pytest.fixture(scope="module")
def method():
    return tiny_method()


@pytest.fixture(scope="module")
def uninterrupted(method, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run") / "whole"
    run(workdir, method)
    return workdir


# Two steps of each stage, and batches are read one ahead.
@pytest.mark.parametrize("batches", [0, 1, 2, 3])
def test_interrupted_and_resumed_equals_uninterrupted_bit_for_bit(method, uninterrupted, tmp_path, batches):
    workdir = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        run(workdir, method, Memory(stop_after=batches))
    run(workdir, method)
    expected, found = (final_variables(w, method) for w in (uninterrupted, workdir))
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    assert without_speed(read_records(workdir)) == without_speed(read_records(uninterrupted))


def test_records_hold_every_step_once(uninterrupted):
    records = [r for r in read_records(uninterrupted) if r["split"] == "train"]
    assert [(r["step"], r["stage"], r["stage_step"]) for r in records] == [
        (1, "level0", 1),
        (2, "level0", 2),
        (3, "joint", 1),
        (4, "joint", 2),
    ]
    assert {r["split"] for r in read_records(uninterrupted)} == {"train", "validation"}


def test_a_finished_run_does_nothing_when_started_again(method, uninterrupted):
    before = read_records(uninterrupted)
    run(uninterrupted, method, Memory(stop_after=0))
    assert read_records(uninterrupted) == before


def test_a_run_starts_from_what_it_is_given_and_resumes_without_it(method, tmp_path):
    def zeros(variables):
        backbone = jax.tree.map(jnp.zeros_like, variables["params"]["backbone"]["res5"])
        params = variables["params"]
        return {**variables, "params": {**params, "backbone": {**params["backbone"], "res5": backbone}}}

    def refuse():
        raise AssertionError

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "run", method, Memory(stop_after=2), start=lambda: zeros)
    res5 = final_variables(tmp_path / "run", method)["params"]["backbone"]["res5"]
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(res5))  # level 0 leaves it alone
    run(tmp_path / "run", method, start=refuse)


def test_another_seed_gives_another_run(method, uninterrupted, tmp_path):
    run(tmp_path / "run", method, seed=1)
    losses = [read_records(w)[0]["loss"] for w in (uninterrupted, tmp_path / "run")]
    assert losses[0] != losses[1]


def test_a_loss_that_is_not_finite_stops_at_its_step_and_names_the_last_checkpoint(tmp_path):
    stages = {"level0": tiny.schedule(steps=6, learning_rate=1e30), "joint": tiny.schedule()}
    method = tiny.hcml(levels=("reconstruction",), stages=stages)
    config = dataclasses.replace(CONFIG, validation_split="")
    with pytest.raises(TrainingError, match=r"stage level0, step [2-6]: .*not finite.*step 1 "):
        run(tmp_path / "run", method, config=config)
    with pytest.raises(TrainingError, match=r"stage level0, step 1: .*not finite.*none yet"):
        run(tmp_path / "validated", method)
    assert not any((tmp_path / "validated" / "checkpoints").iterdir())  # what cannot go on is not kept


class Poisoned(HCML):
    """Its reconstruction is no number for a batch whose first label is 2."""

    def _reconstruction(self, forward, **options):
        term, report = super()._reconstruction(forward, **options)
        return term + jnp.where(forward.batch.label[0] == 2, jnp.nan, 0.0), report


class PoisonedStep(Memory):
    """The batch of step 8 has labels that poison."""

    def train_batches(self, batch_size, **options):
        for number, batch in enumerate(super().train_batches(batch_size, **options), 1):
            yield batch._replace(label=batch.label * 0 + 2) if number == 8 else batch


def test_a_loss_that_is_not_finite_is_told_with_its_step_its_term_and_the_last_good_checkpoint(tmp_path):
    healthy = tiny.hcml(levels=("reconstruction",), stages={"level0": tiny.schedule(steps=9)})
    method = Poisoned(healthy.config, num_classes=0)
    config = dataclasses.replace(CONFIG, log_every=3, checkpoint_every=3)
    with pytest.raises(
        TrainingError,
        match=r"stage level0, step 8: loss, reconstruction/level0 not finite; "
        r"the last good checkpoint is: step 6 \(level0\)",
    ):
        run(tmp_path / "run", method, PoisonedStep(), config)


def test_a_stage_ends_early_once_it_has_converged(tmp_path):
    slow = tiny.schedule(steps=9, learning_rate=1e-12, patience=2)
    method = tiny.hcml(levels=("reconstruction",), stages={"level0": slow}, num_classes=0)
    run(tmp_path / "run", method)
    assert max(r["stage_step"] for r in read_records(tmp_path / "run")) == 3


def test_a_checkpoint_of_another_model_is_refused_by_name(uninterrupted):
    wider = tiny.hcml(levels=("reconstruction",), backbone={**tiny.BACKBONE, "width": 16})
    with pytest.raises(CheckpointError, match="another model.*\n.*backbone/"):
        final_variables(uninterrupted, wider)
    with pytest.raises(CheckpointError, match="another model"):
        run(uninterrupted, wider)


def test_a_checkpoint_whose_deletion_was_cut_short_is_passed_over(method, uninterrupted, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(uninterrupted, workdir)
    (first, *_, last) = sorted((workdir / "checkpoints").iterdir(), key=lambda p: int(p.name))
    for step in (first, last):
        for file in list(step.rglob("*")):
            if file.is_file():
                file.unlink()
    run(workdir, method)
    expected, found = (final_variables(w, method) for w in (uninterrupted, workdir))
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_a_checkpoint_that_cannot_be_read_is_refused_by_name(method, uninterrupted, monkeypatch):
    def fail(*args, **kwargs):
        raise RuntimeError("DATA_LOSS: Error decoding manifest")

    monkeypatch.setattr(ocp.training.Checkpointer, "load", fail)
    with pytest.raises(CheckpointError, match="checkpoints/4 cannot be read: DATA_LOSS"):
        final_variables(uninterrupted, method)


def test_a_checkpoint_of_another_method_is_refused(uninterrupted):
    other = build_method(
        {"name": "supervised", "backbone": tiny.BACKBONE, "stages": {"supervised": tiny.schedule()}}, 3
    )
    with pytest.raises(CheckpointError, match="stage 'joint', which this run has not"):
        run(uninterrupted, other)


def test_reading_leaves_a_save_under_way_alone(method, uninterrupted):
    saving = uninterrupted / "checkpoints" / "99.orbax-checkpoint-tmp"
    saving.mkdir()
    final_variables(uninterrupted, method)
    assert saving.exists()
    saving.rmdir()


def test_a_full_disk_ends_in_one_message_and_loses_nothing(method, tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise ValueError("RESOURCE_EXHAUSTED: No space left on device")

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "run", method, Memory(stop_after=3))
    before = final_variables(tmp_path / "run", method)
    with monkeypatch.context() as context:
        context.setattr(ocp.training.Checkpointer, "save_async", fail)
        with pytest.raises(CheckpointError, match="is the disk full.*No space left"):
            run(tmp_path / "run", method)
    jax.tree.map(np.testing.assert_array_equal, final_variables(tmp_path / "run", method), before)


def test_a_disk_too_full_for_metrics_ends_in_one_message(method, tmp_path, monkeypatch):
    def fail(self):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(EventFileWriter, "flush", fail)
    with pytest.raises(UserError, match=r"metrics.jsonl and events/.*is the disk full.*No space left"):
        run(tmp_path / "run", method)


@pytest.fixture(scope="module")
def five_steps():
    return tiny.hcml(levels=("reconstruction",), stages={"level0": tiny.schedule(steps=5)})


def test_a_folder_emptied_while_the_run_goes_on_ends_it(five_steps, tmp_path):
    class Emptying(Memory):
        def train_batches(self, batch_size, **options):
            for number, batch in enumerate(super().train_batches(batch_size, **options)):
                if number == 3:
                    (tmp_path / "run").rename(tmp_path / "elsewhere")
                yield batch

    config = dataclasses.replace(CONFIG, checkpoint_every=10)
    with pytest.raises(UserError, match=r"metrics.jsonl is gone: .* emptied or moved"):
        run(tmp_path / "run", five_steps, Emptying(), config)


@pytest.mark.parametrize(
    ("gone", "message"),
    [
        ("metrics.jsonl", r"checkpoints up to step 3, but metrics.jsonl is gone: put it back"),
        ("checkpoints", r"tells of step 3, but .*checkpoints holds no checkpoint: put it back"),
    ],
)
def test_a_run_whose_folder_was_emptied_in_part_is_refused(five_steps, tmp_path, gone, message):
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "run", five_steps, Memory(stop_after=4))
    path = tmp_path / "run" / gone
    path.unlink() if path.is_file() else shutil.rmtree(path)
    with pytest.raises(CheckpointError, match=message):
        run(tmp_path / "run", five_steps)


def test_validation_sees_clips_from_all_over_the_split(method, tmp_path):
    class Spread(Memory):
        asked: ClassVar[list] = []

        def num_clips(self, split, labelled_only=False):
            return 100

        def spread(self, split, count):
            return list(range(0, 100, 100 // count))

        def eval_batches(self, split, batch_size, *, only, reads, **options):
            self.asked.append((split, only))
            return super().eval_batches(split, batch_size, reads=reads)

    config = dataclasses.replace(CONFIG, validation_batches=5)
    run(tmp_path / "run", method, Spread(), config)
    assert Spread.asked == [("test", list(range(0, 100, 5)))] * 4


def test_the_last_the_best_and_the_stage_ends_are_kept(tmp_path):
    losses = {"level0": [5.0, 1.0, 4.0, 3.0], "joint": [9.0, 2.0, 8.0, 6.0, 7.0]}
    with Checkpoints(tmp_path, keep=2, writes=True) as checkpoints:
        step = 0
        for stage, values in losses.items():
            for stage_step, loss in enumerate(values, 1):
                step += 1
                position = Position(step, stage, stage_step, stage_step == len(values))
                checkpoints.save(position, {"x": jnp.ones(step)}, loss)
    kept = {int(p.name) for p in tmp_path.iterdir() if p.name.isdigit()}
    assert kept == {4, 6, 8, 9}  # level0's end; of the joint stage the best and the last two


def test_the_end_of_a_stage_without_a_loss_that_means_something_is_kept(tmp_path):
    with Checkpoints(tmp_path, keep=1, writes=True) as checkpoints:
        for step, (stage, loss) in enumerate([("level0", None), ("joint", 1.0), ("joint", 2.0)], 1):
            checkpoints.save(Position(step, stage, step, step == 1), {"x": jnp.ones(step)}, loss)
    assert {int(p.name) for p in tmp_path.iterdir() if p.name.isdigit()} == {1, 2, 3}


def test_a_line_of_metrics_cut_short_by_a_crash_is_dropped(tmp_path):
    whole = json.dumps({"step": 1, "stage": "a", "stage_step": 1, "split": "train"})
    (tmp_path / "metrics.jsonl").write_text(whole + "\n" + whole[:20])
    assert read_records(tmp_path) == [json.loads(whole)]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"batch_size": 0}, "batch_size must be 1 or more"),
        ({"log_every": 3, "checkpoint_every": 4}, "multiple of log_every"),
    ],
)
def test_wrong_training_fields_are_refused(fields, message):
    with pytest.raises(ConfigError, match=message):
        TrainingConfig(**fields)


def test_steps_are_logged_in_windows(tmp_path, method):
    config = TrainingConfig(batch_size=4, log_every=2, checkpoint_every=2)
    run(tmp_path / "run", method, config=config)
    assert [r["step"] for r in read_records(tmp_path / "run")] == [2, 4]


@pytest.mark.parametrize(("right", "told"), [(0.25, True), (0.5, False)])
def test_a_stage_that_ends_no_better_than_by_chance_is_told_of(monkeypatch, right, told):
    method, said = tiny.hcml(), []
    task = "contrastive/level1/right_time"
    records = [
        {"stage": "level1", "split": split, task: share, f"{task}_chance": 0.25}
        for split, share in (("validation", 1 - right), ("train", 1.0), ("validation", right), ("train", 1.0))
    ]
    monkeypatch.setattr(loop.cluster, "say", said.append)
    writer = types.SimpleNamespace(records=records)
    loop._Run._tell_of_chance(types.SimpleNamespace(config=CONFIG, writer=writer, method=method))
    message = (
        f"caution: stage level1 ended with {task} at 0.250, no better than {task}_chance, 0.250: it has not learnt its "
        "task"
    )
    assert said == [message] * told


def test_where_guessing_is_always_right_nothing_is_told(monkeypatch):
    """As of clips with one part alone, of which any guess is right."""
    method, said = tiny.hcml(), []
    task = "contrastive/level1/right_time"
    records = [{"stage": "level1", "split": "validation", task: 1.0, f"{task}_chance": 1.0}]
    monkeypatch.setattr(loop.cluster, "say", said.append)
    run = types.SimpleNamespace(config=CONFIG, writer=types.SimpleNamespace(records=records), method=method)
    loop._Run._tell_of_chance(run)
    assert not said


class Leading(HCML):
    """A method of which so much of the flow leads into the frame."""

    def _reconstruction(self, forward, **options):
        term, report = super()._reconstruction(forward, **options)
        return term, report | {"valid": jnp.float32(self.share)}


def test_a_loss_below_its_floor_is_warned_of_and_is_no_progress(tmp_path, capsys):
    stages = {"level0": tiny.schedule(steps=2)}
    healthy = tiny.hcml(levels=("reconstruction",), stages=stages, num_classes=0)
    kept = {}
    for name, share in (("valid", 0.9), ("invalid", 0.1)):
        method = Leading(healthy.config, num_classes=0)
        object.__setattr__(method, "share", share)
        run(tmp_path / name, method, config=dataclasses.replace(CONFIG, validation_split=""))
        records = read_records(tmp_path / name)
        assert records[0]["reconstruction/level0/valid"] == pytest.approx(share)
        folder = tmp_path / name / "checkpoints"
        told = [json.loads(p.read_text()) for p in folder.glob("*/metrics/metrics")]
        kept[name] = [metrics["loss"] for metrics in told]
        assert [metrics["complete"] for metrics in told].count(True) == 1  # ends are kept all the same
        warned = "valid is 0.10, under 0.5" in capsys.readouterr().err
        assert warned == (name == "invalid")
    assert None not in kept["valid"]
    assert set(kept["invalid"]) == {None}  # the best is not chosen among the meaningless


@pytest.mark.parametrize(
    ("losses", "shares", "converged"),
    [
        ((3.0, 2.0, 1.0), (0.9, 0.9, 0.9), False),
        ((3.0, 2.9999, 2.9998), (0.9, 0.9, 0.9), True),
        ((3.0, 0.0, 0.0), (0.9, 0.1, 0.1), True),  # the fall means nothing
        ((0.0, 3.0, 2.0), (0.1, 0.9, 0.9), False),  # nor does what came before
        ((0.0, 0.0, 0.0), (0.1, 0.1, 0.1), True),
    ],
)
def test_a_stage_ends_early_on_losses_above_the_floor_alone(losses, shares, converged):
    stages = {"level0": tiny.schedule(steps=9, patience=2)}
    stage = tiny.hcml(levels=("reconstruction",), stages=stages, num_classes=0).stages[0]
    records = [
        {"stage": "level0", "split": "train", "loss": loss, "reconstruction/level0/valid": s}
        for loss, s in zip(losses, shares, strict=True)
    ]
    writer = types.SimpleNamespace(records=records)
    config = dataclasses.replace(CONFIG, validation_split="")
    run = types.SimpleNamespace(config=config, writer=writer)
    assert loop._Run._converged(run, stage) == converged
