"""The loop over stages: train, log, validate, save, resume."""

import dataclasses
import itertools
import math
import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from hcml_jax import cluster
from hcml_jax.batch import Data
from hcml_jax.config import ConfigError, UserError, nearest
from hcml_jax.methods.base import Method, Stage, Variables
from hcml_jax.progress import Progress
from hcml_jax.training.checkpoints import CheckpointError, Checkpoints, Position
from hcml_jax.training.config import TrainingConfig
from hcml_jax.training.mesh import Layout, make_mesh
from hcml_jax.training.metrics import MetricsWriter, average, read_records
from hcml_jax.training.optimizer import make_optimizer
from hcml_jax.training.step import (
    TrainState,
    abstract_state,
    abstract_variables,
    derive,
    init_state,
    init_variables,
    make_train_step,
    make_validation_step,
)
from hcml_jax.training.stopping import Stopped, StopSignals


class TrainingError(UserError, RuntimeError):
    """Training cannot go on; the message says at which step, and what to do."""


def train(
    method: Method,
    data: Data,
    config: TrainingConfig,
    workdir: pathlib.Path,
    seed: int,
    start: Callable[[], Callable[[Variables], Variables]] | None = None,
) -> None:
    """Trains every stage of `method`, from the last checkpoint of `workdir` if it has one.

    Args:
      method, data, config, workdir, seed: the run.
      start: called by a run without a checkpoint; returns a function from fresh variables to those that the run starts
        from. None: it starts from fresh ones.

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
    start: Callable[[], Callable[[Variables], Variables]] | None
    layout: Layout
    signals: StopSignals
    checkpoints: Checkpoints
    writer: MetricsWriter

    def train(self, latest: Position | None) -> None:
        stages = first_stages(self.method, self.config.first_stage)
        step = 0
        if latest:
            step = latest.step
            stages = stages[self._number(latest.stage, stages) :]
            state = self._restore(latest, stages[0])
            cluster.say(f"resuming at step {step} ({latest.stage}, step {latest.stage_step})")
            if not latest.complete:
                before = step - latest.stage_step
                state = self._train_stage(stages[0], state, before, latest.window)
                step += int(state.step) - latest.stage_step
                self._stop_if_asked(step)
            variables, stages = state.variables, stages[1:]
        else:
            variables = self._begin(stages[0])
        for stage in stages:
            state = init_state(variables, stage, self._optimizer(stage), self.layout)
            state = self._train_stage(stage, state, step)
            step += int(state.step)
            self._stop_if_asked(step)
            variables = state.variables
        self._tell_of_chance()

    def _begin(self, stage: Stage) -> Variables:
        """Variables that the first stage starts from; those given are saved as step 0."""
        variables = init_variables(self.method, self.data.clip_shape, self.seed, self.layout)
        if not self.start:
            return variables
        variables = derive(self.method, self.start()(variables), self.layout)
        state = init_state(variables, stage, self._optimizer(stage), self.layout)
        self.checkpoints.save(Position(0, stage.name, 0, False), state, None, needed=True)
        return variables

    def _stop_if_asked(self, step: int) -> None:
        """Between stages, where all is saved."""
        if stop := self.signals.agree():
            raise Stopped(stop, step)

    def _train_stage(self, stage: Stage, state: TrainState, before: int, window: Sequence[Any] = ()) -> TrainState:
        """Trains a stage to its end.

        Args:
          stage: the stage.
          state: where it stands.
          before: the run's steps before the stage.
          window: metrics of its last steps, which no record holds yet.
        """
        config, window = self.config, list(window)
        total = stage.schedule.num_steps(self._num_clips(stage), config.batch_size)
        train_step = make_train_step(self.method, stage, self._optimizer(stage), self.seed, self.layout)
        validation_step = make_validation_step(self.method, stage, self.seed, self.layout)
        first = int(state.step)
        speed = _Speed(config.batch_size, first)
        batches = self._batches(stage, first, total - first)
        with Progress(f"[{stage.name}]", total, "steps", first) as progress:
            for done, batch in enumerate(batches, first + 1):
                state, metrics = train_step(state, batch)
                window.append(metrics)
                if len(window) > 1:  # one step behind, so that the device is never idle
                    window[-2] = self._fetch(window[-2], stage, done - 1)
                progress.add(told=_headline(window[-2]) if len(window) > 1 else "")
                stop, last = self.signals.poll(), done == total
                if not (stop or last) and done % config.log_every:
                    continue
                window[-1] = self._fetch(window[-1], stage, done)
                if last or done % config.log_every == 0:
                    metrics = average(window) | {"clips_per_second": speed.lap(done)}
                    self._record(stage, before, done, "train", metrics)
                    progress.add(0, told=_headline(metrics))
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
        """Batches from step `first` on, on the device, one ahead of the step."""
        batches = self.data.train_batches(
            self.config.batch_size,
            seed=self.seed,
            stage=stage.name,
            reads=stage.reads,
            first_step=first,
            labelled_only=stage.labelled_only,
            **cluster.shard(),
        )
        ahead = None
        for batch in itertools.islice(batches, count):
            if ahead is not None:
                yield ahead
            ahead = self.data.complete(self.layout.shard_batch(batch), stage.reads)
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

    def _record(self, stage: Stage, before: int, done: int, split: str, metrics: Mapping[str, float]) -> None:
        where = {"step": before + done, "stage": stage.name, "stage_step": done, "split": split}
        self.writer.write(where | dict(metrics))
        for name in _below_floor(stage, metrics):
            cluster.say(
                f"[{stage.name}] step {done}: {name} is {metrics[name]:.2f}, under {stage.floors[name]:g}: its loss "
                "means little, and is not taken for progress"
            )

    def _tell_of_chance(self) -> None:
        """Says which stages ended no better than by chance at what they were to learn."""
        split = "validation" if self.config.validation_split else "train"
        for stage in self.method.stages:
            records = [r for r in self.writer.records if (r["stage"], r["split"]) == (stage.name, split)]
            for metric, chance in stage.chances.items():
                # Where guessing is always right there is nothing to learn.
                if records and records[-1][metric] <= records[-1][chance] != 1.0:
                    cluster.say(
                        f"caution: stage {stage.name} ended with {metric} at {records[-1][metric]:.3f}, no better than "
                        f"{chance}, {records[-1][chance]:.3f}: it has not learnt its task"
                    )

    def _validate(self, validation_step, state: TrainState, stage: Stage, before: int) -> float | None:
        """The validation loss, logged, or the last training loss where there is no such split; None below a floor."""
        if self.config.validation_split:
            done = int(state.step)
            results = [
                self._fetch(validation_step(state.variables, batch), stage, done)
                for batch in self._validation_batches(stage)
            ]
            self._record(stage, before, done, "validation", average(results))
        record = self.writer.records[-1]
        return None if _below_floor(stage, record) else record["loss"]

    def _validation_batches(self, stage: Stage):
        """Full batches of clips spread over the validation split; a split smaller than a batch gives one, padded."""
        split, size = self.config.validation_split, self.config.batch_size
        clips = self.data.num_clips(split)
        count = min(self.config.validation_batches, max(1, clips // size)) * size
        only = self.data.spread(split, count)
        batches = self.data.eval_batches(split, size, reads=stage.reads, only=only, **cluster.shard())
        return (self.data.complete(self.layout.shard_batch(batch), stage.reads) for batch in batches)

    def _converged(self, stage: Stage) -> bool:
        """Whether none of the stage's last `patience` losses (without those below a floor) improved on those before."""
        schedule = stage.schedule
        split = "validation" if self.config.validation_split else "train"
        losses = [
            math.inf if _below_floor(stage, r) else r["loss"]
            for r in self.writer.records
            if (r["stage"], r["split"]) == (stage.name, split)
        ]
        if not schedule.patience or len(losses) <= schedule.patience:
            return False
        best_before = min(losses[: -schedule.patience])
        best_since = min(losses[-schedule.patience :])
        wanted = schedule.min_improvement * abs(best_before) if math.isfinite(best_before) else 0.0
        return best_since >= best_before - wanted

    def _number(self, name: str, stages: Sequence[Stage]) -> int:
        """Which stage has this name."""
        names = [stage.name for stage in stages]
        if name not in names:
            raise CheckpointError(f"the last checkpoint is of stage {name!r}, which this run has not: {names}")
        return names.index(name)

    def _num_clips(self, stage: Stage) -> int:
        return self.data.num_clips("train", labelled_only=stage.labelled_only)

    def _optimizer(self, stage: Stage):
        return make_optimizer(stage.schedule, self._num_clips(stage), self.config.batch_size)

    def _restore(self, latest: Position, stage: Stage) -> TrainState:
        variables = abstract_variables(self.method, self.data.clip_shape, self.layout)
        state = abstract_state(variables, stage, self._optimizer(stage), self.layout)
        return self.checkpoints.restore(latest, state)


def first_stages(method: Method, first: str) -> tuple[Stage, ...]:
    """The stages from the one called `first` on; "": all.

    Raises:
      ConfigError: there is none of this name.
    """
    names = [stage.name for stage in method.stages]
    if first and first not in names:
        raise ConfigError(f"config.training.first_stage: no stage {first!r}. {nearest(first, names)}")
    return method.stages[names.index(first) if first else 0 :]


class _Speed:
    """Clips a second between records."""

    def __init__(self, batch_size: int, done: int):
        self._batch_size, self._mark = batch_size, (done, time.monotonic())

    def lap(self, done: int) -> float:
        """Since the last lap."""
        (before, then), now = self._mark, time.monotonic()
        self._mark = (done, now)
        return (done - before) * self._batch_size / max(now - then, 1e-9)


def _headline(metrics: Mapping[str, float]) -> str:
    """The loss, what is recognised, and the speed."""
    told = ["loss", *(name for name in metrics if name.endswith("top1"))]
    line = " ".join(f"{name} {metrics[name]:.4g}" for name in told)
    speed = metrics.get("clips_per_second")
    return f"{line} {speed:.1f} clips/s" if speed else line


def _below_floor(stage: Stage, metrics: Mapping[str, float]) -> list[str]:
    """The metrics at which the stage's loss means little; see `Term.floors`."""
    return [name for name, floor in stage.floors.items() if metrics.get(name, floor) < floor]
