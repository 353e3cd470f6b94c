"""The train state and the pure, jitted step of a stage."""

import functools
from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from hcml_jax.batch import Batch, blank_batch
from hcml_jax.methods.base import Method, Stage, Variables
from hcml_jax.rng import step_key
from hcml_jax.training import freezing
from hcml_jax.training.accumulation import accumulated_gradients
from hcml_jax.training.mesh import Layout


@flax.struct.dataclass
class TrainState:
    """Everything that training changes.

    Attributes:
      step: int32 scalar, steps done in the current stage.
      variables: the method's collections.
      opt_state: of the stage's optimizer, over its trainable parameters alone.
    """

    step: jax.Array
    variables: dict[str, Any]
    opt_state: Any


def init_variables(method: Method, clip_shape: tuple[int, ...], seed: int, layout: Layout) -> Variables:
    """Initial variables of a run with this seed on clips `[T, H, W, 3]`, created with their shardings."""
    # On CPU, optimising the random numbers of every kernel takes three times as long as making them.
    options = {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else None
    init = functools.partial(_init, method, clip_shape, layout)
    return jax.jit(init, compiler_options=options)(step_key(seed, "init", 0))


def abstract_variables(method: Method, clip_shape: tuple[int, ...], layout: Layout) -> Variables:
    """Shapes, dtypes and shardings of what `init_variables` makes; nothing is computed."""
    init = functools.partial(_init, method, clip_shape, layout)
    return layout.abstract_state(jax.eval_shape(init, jax.random.key(0)))


def _init(method: Method, clip_shape: tuple[int, ...], layout: Layout, key: jax.Array) -> Variables:
    batch = blank_batch(1, clip_shape, method.stages[0].reads)
    return layout.place_state(method.derive(method.init(key, batch)))


def derive(method: Method, variables: Variables, layout: Layout) -> Variables:
    """Apply the method's `derive` to variables, and constrain them to their shardings."""
    return jax.jit(lambda variables: layout.place_state(method.derive(variables)))(variables)


def init_state(variables: Variables, stage: Stage, optimizer, layout: Layout) -> TrainState:
    """The state at the start of a stage: given variables, fresh optimizer."""

    def start(variables):
        opt_state = optimizer.init(freezing.select(variables["params"], stage.trainable))
        return layout.place_state(opt_state)

    step = jax.device_put(jnp.zeros((), jnp.int32), layout.replicated)
    return TrainState(step, dict(variables), jax.jit(start)(variables))


def abstract_state(variables: Variables, stage: Stage, optimizer, layout: Layout) -> TrainState:
    """Shapes, dtypes and shardings of the state that `init_state` makes; `variables` may be abstract."""
    start = functools.partial(init_state, stage=stage, optimizer=optimizer, layout=layout)
    return layout.abstract_state(jax.eval_shape(start, variables))


def make_train_step(method: Method, stage: Stage, optimizer, seed: int, layout: Layout) -> Callable:
    """A jitted function (state, batch) -> (state, metrics), float32 scalars. The state given is consumed."""

    def train_step(state: TrainState, batch: Batch):
        key = step_key(seed, stage.name, state.step)
        params = state.variables["params"]

        def loss(selected, batch, key):
            variables = {**state.variables, "params": freezing.merge(selected, params)}
            return method.loss(variables, batch, key, stage, train=True)

        selected = freezing.select(params, stage.trainable)
        gradients, outputs = accumulated_gradients(loss, selected, batch, key, stage.schedule.micro_batches, layout)
        updates, opt_state = optimizer.update(gradients, state.opt_state, selected)
        selected = optax.apply_updates(selected, updates)
        changed = {**outputs.collections, "params": freezing.merge(selected, params)}
        variables = {**state.variables, **changed}
        metrics = {**outputs.metrics, "gradient_norm": optax.tree.norm(gradients)}
        state = TrainState(state.step + 1, variables, opt_state)
        return layout.place_state(state), jax.lax.with_sharding_constraint(metrics, layout.replicated)

    return jax.jit(train_step, donate_argnums=0)


def make_validation_step(method: Method, stage: Stage, seed: int, layout: Layout) -> Callable:
    """A jitted function (variables, batch) -> metrics of the stage's loss without augmentation; always alike."""

    def validation_step(variables: Variables, batch: Batch):
        key = step_key(seed, f"{stage.name}/validation", 0)
        return method.loss(variables, batch, key, stage, train=False)[1].metrics

    return jax.jit(validation_step, out_shardings=layout.replicated)
