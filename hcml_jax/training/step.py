"""The train state and the pure, jitted step of a stage."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax

from hcml_jax.methods.base import Batch, Method, Stage, Variables
from hcml_jax.training import freezing
from hcml_jax.training.mesh import replicated
from hcml_jax.training.rng import step_key


@flax.struct.dataclass
class TrainState:
    """Everything that training changes.

    Attributes:
      step: int32 scalar, steps done in the current stage.
      variables: "params" and "batch_stats".
      opt_state: of the stage's optimizer, over its trainable parameters alone.
    """

    step: jax.Array
    variables: dict[str, Any]
    opt_state: Any


def init_variables(method: Method, clip_shape: tuple[int, ...], seed: int, mesh) -> Variables:
    """The variables with which a run of this seed on clips `[T, H, W, 3]` starts, born on the mesh."""
    # On CPU, optimising the random numbers of every kernel takes three times as long as making them.
    options = {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else None
    init = jax.jit(method.init, out_shardings=replicated(mesh), compiler_options=options)
    return init(step_key(seed, "init", 0), {"clip": np.zeros((1, *clip_shape), np.uint8)})


def abstract_variables(method: Method, clip_shape: tuple[int, ...], mesh) -> Variables:
    """Shapes, dtypes and shardings of what `init_variables` makes; nothing is computed."""
    batch = {"clip": jax.ShapeDtypeStruct((1, *clip_shape), np.uint8)}
    return _on_mesh(jax.eval_shape(method.init, jax.random.key(0), batch), mesh)


def init_state(variables: Variables, stage: Stage, optimizer, mesh) -> TrainState:
    """The state at the start of a stage: given variables, fresh optimizer."""

    def start(params):
        return optimizer.init(freezing.select(params, stage.trainable))

    opt_state = jax.jit(start, out_shardings=replicated(mesh))(variables["params"])
    step = jax.device_put(jnp.zeros((), jnp.int32), replicated(mesh))
    return TrainState(step, dict(variables), opt_state)


def abstract_state(variables: Variables, stage: Stage, optimizer, mesh) -> TrainState:
    """The same of what `init_state` makes of variables, which may be abstract."""
    start = functools.partial(init_state, stage=stage, optimizer=optimizer, mesh=mesh)
    return _on_mesh(jax.eval_shape(start, variables), mesh)


def _on_mesh(tree, mesh):
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=replicated(mesh)), tree
    )


def make_train_step(method: Method, stage: Stage, optimizer, seed: int, mesh) -> Callable:
    """A jitted function (state, batch) -> (state, metrics), float32 scalars. The state given is consumed."""

    def train_step(state: TrainState, batch: Batch):
        key = step_key(seed, stage.name, state.step)
        params = state.variables["params"]

        def loss_fn(selected):
            variables = {**state.variables, "params": freezing.merge(selected, params)}
            return method.loss(variables, batch, key, stage)

        selected = freezing.select(params, stage.trainable)
        gradients, outputs = jax.grad(loss_fn, has_aux=True)(selected)
        updates, opt_state = optimizer.update(gradients, state.opt_state, selected)
        selected = optax.apply_updates(selected, updates)
        variables = {"params": freezing.merge(selected, params), **outputs.state}
        metrics = {**outputs.metrics, "gradient_norm": optax.tree.norm(gradients)}
        return TrainState(state.step + 1, variables, opt_state), metrics

    return jax.jit(train_step, donate_argnums=0, out_shardings=replicated(mesh))


def make_validation_step(method: Method, stage: Stage, seed: int, mesh) -> Callable:
    """A jitted function (variables, batch) -> metrics: the stage's loss with all statistics frozen."""

    def frozen(path):
        del path
        return False

    stage = dataclasses.replace(stage, trainable=frozen)

    def validation_step(variables: Variables, batch: Batch):
        key = step_key(seed, f"{stage.name}/validation", 0)
        return method.loss(variables, batch, key, stage)[1].metrics

    return jax.jit(validation_step, out_shardings=replicated(mesh))
