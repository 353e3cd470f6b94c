"""The loop over stages: train, log, validate, save, resume."""

import dataclasses
import itertools
import math
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import jax

from hcml_jax import cluster
from hcml_jax.config import UserError
from hcml_jax.methods.base import Method, Stage, Variables
from hcml_jax.training.checkpoints import CheckpointError, Checkpoints, Position
from hcml_jax.training.config import TrainingConfig
from hcml_jax.training.mesh import Layout, make_mesh
from hcml_jax.training.metrics import MetricsWriter, Progress, average, read_records
from hcml_jax.training.optimizer import make_optimizer
from hcml_jax.training.step import (
    TrainState,
    abstract_state,
    abstract_variables,
    init_state,
    init_variables,
    make_train_step,
    make_validation_step,
)
from hcml_jax.training.stopping import Stopped, StopSignals


class TrainingError(UserError, RuntimeError):
    """Training cannot go on; the message says at which step, and what to do."""


class Data(Protocol):
    """What training reads of `data_pipelines.open_data(...)`; see docs/architecture.md."""

    clip_shape: tuple[int, ...]

    def num_clips(self, split: str, labelled_only: bool = False) -> int: ...
    def spread(self, split: str, count: int) -> Sequence[int]: ...
    def train_batches(self, batch_size: int, **options: Any): ...
    def eval_batches(self, split: str, batch_size: int, **options: Any): ...


def train(
    method: Method,
    data: Data,
    config: TrainingConfig,
    workdir: pathlib.Path,
    seed: int,
    start: Callable[[Variables], Variables] | None = None,
) -> None:
    """Trains every stage of `method`, from the last checkpoint of `workdir` if it has one.

    Args:
      method, data, config, workdir, seed: the run.
      start: makes of fresh variables those that a run without a checkpoint starts from; None: they are.

    Raises:
      TrainingError: if a loss is not finite.
      CheckpointError: if the last checkpoint cannot be restored.
      Stopped: on SIGTERM or SIGINT, once the state is saved.
    """
    layout = Layout(make_mesh(), config.shard_state)
    with (
        jax.set_mesh(layout.mesh),
        StopSignals(layout) as signals,
        Checkpoints(workdir / "checkpoints", config.keep, writes=True) as checkpoints,
    ):
        latest = checkpoints.latest
        _check_complete(workdir, latest, config.checkpoint_every)
        writer = MetricsWriter(workdir, latest.step if latest else 0)
        run = _Run(method, data, config, seed, start, layout, signals, checkpoints, writer)
        try:
            run.train(latest)
        finally:
            writer.close()


def _check_complete(workdir: pathlib.Path, latest: Position | None, checkpoint_every: int) -> None:
    """Raises CheckpointError if part of what a run had written is no longer in its folder."""
    remedy = "put it back, or name another --workdir"
    if latest and not (workdir / "metrics.jsonl").exists():
        raise CheckpointError(
            f"{workdir} holds checkpoints up to step {latest.step}, but metrics.jsonl is gone: {remedy}"
        )
    records = read_records(workdir)
    # A save is whole once the next one begins.
    if not latest and records and records[-1]["step"] > 2 * checkpoint_every:
        raise CheckpointError(
            f"{workdir / 'metrics.jsonl'} tells of step {records[-1]['step']}, but {workdir / 'checkpoints'} holds no "
            f"checkpoint: {remedy}"
        )


@dataclasses.dataclass
class _Run:
    method: Method
    data: Data
    config: TrainingConfig
    seed: int
    start: Callable[[Variables], Variables] | None
    layout: Layout
    signals: StopSignals
    checkpoints: Checkpoints
    writer: MetricsWriter

    def train(self, latest: Position | None) -> None:
        stages = self.method.stages
        step = 0
        if latest:
            step = latest.step
            stages = stages[self._number(latest.stage) :]
            state = self._restore(latest, stages[0])
            cluster.say(f"resuming at step {step} ({latest.stage}, step {latest.stage_step})")
            if not latest.complete:
                before = step - latest.stage_step
                state = self._train_stage(stages[0], state, before, latest.window)
                step += int(state.step) - latest.stage_step
                self._stop_if_asked(step)
            variables, stages = state.variables, stages[1:]
        else:
            variables = init_variables(self.method, self.data.clip_shape, self.seed, self.layout)
            variables = self.start(variables) if self.start else variables
        for stage in stages:
            state = init_state(variables, stage, self._optimizer(stage), self.layout)
            state = self._train_stage(stage, state, step)
            step += int(state.step)
            self._stop_if_asked(step)
            variables = state.variables

    def _stop_if_asked(self, step: int) -> None:
        """Between stages, where all is saved."""
        if stop := self.signals.agree():
            raise Stopped(stop, step)

    def _train_stage(
        self, stage: Stage, state: TrainState, before: int, window: Sequence[Any] = ()
    ) -> TrainState:
        """Trains a stage to its end.

        Args:
          stage: the stage.
          state: where it stands.
          before: the run's steps before the stage.
          window: metrics of its last steps, which no record holds yet.
        """
        config, window = self.config, list(window)
        total = stage.schedule.num_steps(self._num_clips(stage), config.batch_size)
        train_step = make_train_step(
            self.method, stage, self._optimizer(stage), self.seed, self.layout
        )
        validation_step = make_validation_step(self.method, stage, self.seed, self.layout)
        first = int(state.step)
        progress = Progress(stage.name, total, first, config.batch_size)
        batches = self._device_batches(stage, first, total - first)
        for done, batch in enumerate(batches, first + 1):
            state, metrics = train_step(state, batch)
            window.append(metrics)
            if len(window) > 1:  # one step behind, so that the device is never idle
                window[-2] = self._fetch(window[-2], stage, done - 1)
            stop, last = self.signals.poll(), done == total
            if not (stop or last) and done % config.log_every:
                continue
            window[-1] = self._fetch(window[-1], stage, done)
            if last or done % config.log_every == 0:
                self._log(stage, before, done, average(window), progress)
                window = []
            complete = False
            if last or done % config.checkpoint_every == 0:
                loss = self._validate(validation_step, state, stage, before)
                complete = last or self._converged(stage)
                position = Position(before + done, stage.name, done, complete)
                self.checkpoints.save(position, state, loss, needed=complete or bool(stop))
            elif stop:
                position = Position(before + done, stage.name, done, False, window)
                self.checkpoints.save(position, state, None, needed=True)
            if stop:
                raise Stopped(stop, before + done)
            if complete:
                break
        return state

    def _batches(self, stage: Stage, first: int, count: int):
        batches = self.data.train_batches(
            self.config.batch_size,
            seed=self.seed,
            first_step=first,
            labelled_only=stage.labelled_only,
            shard_index=jax.process_index(),
            num_shards=jax.process_count(),
        )
        return itertools.islice(batches, count)

    def _device_batches(self, stage: Stage, first: int, count: int):
        """The same on the device, one batch ahead of the step."""
        ahead = None
        for batch in self._batches(stage, first, count):
            if ahead is not None:
                yield ahead
            ahead = self.layout.shard_batch(batch)
        if ahead is not None:
            yield ahead

    def _fetch(self, metrics, stage: Stage, done: int) -> dict[str, float]:
        values = {name: float(value) for name, value in jax.device_get(metrics).items()}
        bad = [name for name, value in values.items() if not math.isfinite(value)]
        if bad:
            latest = self.checkpoints.latest
            good = f"step {latest.step} ({latest.stage})" if latest else "none yet"
            raise TrainingError(
                f"stage {stage.name}, step {done}: {', '.join(bad)} not finite; the last good "
                f"checkpoint is: {good}. A lower learning_rate or a clip_norm, in another "
                f"workdir, may help"
            )
        return values

    def _log(self, stage: Stage, before: int, done: int, metrics, progress: Progress) -> None:
        speed = progress.lap(done)
        progress.show(done, metrics, speed)
        self.writer.write(
            _record(stage, before + done, done, "train") | metrics | {"clips_per_second": speed}
        )

    def _validate(self, validation_step, state: TrainState, stage: Stage, before: int) -> float:
        """The validation loss, logged; the last training loss where there is no validation split."""
        config = self.config
        if not config.validation_split:
            return self.writer.records[-1]["loss"]
        done = int(state.step)
        results = [
            self._fetch(validation_step(state.variables, batch), stage, done)
            for batch in self._validation_batches()
        ]
        metrics = average(results)
        self.writer.write(_record(stage, before + done, done, "validation") | metrics)
        return metrics["loss"]

    def _validation_batches(self):
        """Whole batches (one, filled up, of a smaller split) of clips from all over the validation split."""
        split, size = self.config.validation_split, self.config.batch_size
        clips = self.data.num_clips(split)
        count = min(self.config.validation_batches, max(1, clips // size)) * size
        only = self.data.spread(split, count)
        shard = {"shard_index": jax.process_index(), "num_shards": jax.process_count()}
        for batch in self.data.eval_batches(split, size, only=only, **shard):
            yield self.layout.shard_batch(batch)

    def _converged(self, stage: Stage) -> bool:
        """Whether the last `patience` losses of the stage improved on none before them."""
        schedule = stage.schedule
        split = "validation" if self.config.validation_split else "train"
        losses = [
            r["loss"]
            for r in self.writer.records
            if (r["stage"], r["split"]) == (stage.name, split)
        ]
        if not schedule.patience or len(losses) <= schedule.patience:
            return False
        best_before = min(losses[: -schedule.patience])
        best_since = min(losses[-schedule.patience :])
        return best_since > best_before - schedule.min_improvement * abs(best_before)

    def _number(self, name: str) -> int:
        """Which stage has this name."""
        names = [stage.name for stage in self.method.stages]
        if name not in names:
            raise CheckpointError(
                f"the last checkpoint is of stage {name!r}, which this run has not: {names}"
            )
        return names.index(name)

    def _num_clips(self, stage: Stage) -> int:
        return self.data.num_clips("train", labelled_only=stage.labelled_only)

    def _optimizer(self, stage: Stage):
        return make_optimizer(stage.schedule, self._num_clips(stage), self.config.batch_size)

    def _restore(self, latest: Position, stage: Stage) -> TrainState:
        variables = abstract_variables(self.method, self.data.clip_shape, self.layout)
        state = abstract_state(variables, stage, self._optimizer(stage), self.layout)
        return self.checkpoints.restore(latest, state)


def _record(stage: Stage, step: int, stage_step: int, split: str) -> dict[str, Any]:
    return {"step": step, "stage": stage.name, "stage_step": stage_step, "split": split}
