"""Running stages of a method, and what they moved."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from hcml_jax.training import freezing
from hcml_jax.training.mesh import Layout, make_mesh
from hcml_jax.training.optimizer import make_optimizer
from hcml_jax.training.step import init_state, make_train_step
from tests.methods import tiny


def run_stage(method, stage, variables, steps=2):
    """Some steps of a stage from (copies of) `variables`."""
    layout = Layout(make_mesh())
    optimizer = make_optimizer(stage.schedule, clips=8, batch_size=4)
    copy = jax.tree.map(jnp.copy, variables)
    state = init_state(copy, stage, optimizer, layout)
    step = make_train_step(method, stage, optimizer, 0, layout)
    for seed in range(steps):
        state, metrics = step(state, tiny.batch(seed=seed))
    return state, metrics


def begin(method, batch, seed=0):
    """Its variables, with what follows from those learnt."""
    return jax.jit(lambda *given: method.derive(method.init(*given)))(jax.random.key(seed), batch)


def loss_of(method, train):
    """The loss of its first stage."""
    return jax.jit(functools.partial(method.loss, stage=method.stages[0], train=train))


def unit(x):
    """Vectors of length 1, float64."""
    return np.asarray(x, np.float64) / np.linalg.norm(x, axis=-1, keepdims=True)


def leaves(tree):
    flat, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {"/".join(freezing.path_names(path)): np.asarray(leaf) for path, leaf in flat}


def moved(before, after):
    before, after = leaves(before), leaves(after)
    return {name for name in before if not np.array_equal(before[name], after[name])}
