"""Schedules against closed forms; weight decay and clipping where they belong."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hcml_jax.config import ConfigError
from hcml_jax.methods import Schedule
from hcml_jax.training.optimizer import learning_rate, make_optimizer


def test_the_rate_warms_up_linearly_and_falls_along_a_cosine():
    schedule = Schedule(epochs=10, warmup=2, learning_rate=0.0025)
    rate = learning_rate(schedule, clips=80, batch_size=16)  # 5 steps an epoch, twice 8 clips
    peak = 0.005
    np.testing.assert_allclose(rate(0), 0)
    np.testing.assert_allclose(rate(5), peak / 2)
    np.testing.assert_allclose(rate(10), peak)
    np.testing.assert_allclose(rate(30), peak * (1 + np.cos(np.pi * 20 / 40)) / 2, rtol=1e-5)
    np.testing.assert_allclose(rate(50), 0, atol=1e-9)


@pytest.mark.parametrize(("length", "epoch"), [({"steps": 50}, 1), ({"epochs": 10.0}, 5)], ids=["steps", "epochs"])
@pytest.mark.parametrize("warmup", [0, 10])
def test_the_rate_falls_to_a_tenth_at_each_milestone(length, epoch, warmup):
    schedule = Schedule(
        **length,
        warmup=warmup / epoch,
        decay="steps",
        milestones=(20 / epoch, 35 / epoch),
        learning_rate=0.5,
        per_clips=16,
    )
    rate = learning_rate(schedule, clips=80, batch_size=16)  # 5 steps an epoch
    expected = 0.5
    for step in range(50):
        if step in (20, 35):
            expected /= 10
        warm = min(1, step / warmup) if warmup else 1
        np.testing.assert_allclose(rate(step), warm * expected, rtol=1e-6)


def test_milestones_that_fall_on_one_step_all_count():
    schedule = Schedule(epochs=1.0, decay="steps", milestones=(0.5, 0.6), per_clips=0)
    rate = learning_rate(schedule, clips=20, batch_size=10)
    np.testing.assert_allclose([rate(0), rate(1)], [0.0025, 0.000025], rtol=1e-6)


def test_adamw_decays_weights_apart_from_the_gradients_moments():
    fields = {"steps": 10, "learning_rate": 0.5, "per_clips": 0, "weight_decay": 0.1}
    optimizer = make_optimizer(Schedule(**fields, optimizer="adamw"), 80, 8)
    params, gradients = {"kernel": jnp.full((2, 2), 3.0)}, {"kernel": jnp.full((2, 2), 7.0)}
    with jax.numpy_dtype_promotion("standard"):  # optax takes a float to the power of an integer
        updates, _ = optimizer.update(gradients, optimizer.init(params), params)
    np.testing.assert_allclose(updates["kernel"], -0.5 * (1 + 0.1 * 3.0), rtol=1e-4)


def test_the_rate_is_not_scaled_where_per_clips_is_zero():
    schedule = Schedule(steps=10, learning_rate=0.1, per_clips=0)
    np.testing.assert_allclose(learning_rate(schedule, 80, 64)(0), 0.1)


def test_weight_decay_spares_vectors():
    optimizer = make_optimizer(Schedule(steps=10, learning_rate=1.0, per_clips=0, weight_decay=0.1), 80, 8)
    params = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}
    zeros = {"kernel": jnp.zeros((2, 2)), "bias": jnp.zeros(2)}
    updates, _ = optimizer.update(zeros, optimizer.init(params), params)
    np.testing.assert_allclose(updates["kernel"], -0.1)
    np.testing.assert_allclose(updates["bias"], 0)


def test_gradients_are_clipped_by_their_global_norm():
    schedule = Schedule(steps=10, learning_rate=1.0, per_clips=0, weight_decay=0.0, clip_norm=1.0)
    optimizer = make_optimizer(schedule, 80, 8)
    params = {"a": jnp.zeros(1), "b": jnp.zeros(1)}
    updates, _ = optimizer.update({"a": jnp.array([3.0]), "b": jnp.array([4.0])}, optimizer.init(params), params)
    np.testing.assert_allclose([updates["a"][0], updates["b"][0]], [-0.6, -0.8], rtol=1e-6)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "`epochs` or `steps`"),
        ({"epochs": 1.0, "steps": 1}, "`epochs` or `steps`"),
        ({"steps": 1, "optimizer": "lars"}, "no optimizer is called 'lars'. Valid: sgd, adamw"),
        ({"steps": 1, "optimizer": "adam"}, "no optimizer is called 'adam'. Did you mean 'adamw'"),
        ({"steps": 1, "decay": "step"}, "no decay is called 'step'. Did you mean 'steps'"),
        ({"steps": 9, "decay": "steps"}, "needs milestones.*milestones="),
        ({"steps": 9, "milestones": (3.0,)}, "needs milestones.*decay='cosine'"),
        ({"steps": 9, "decay": "steps", "milestones": (3.0, 3.0)}, "milestones must rise"),
        ({"steps": 9, "decay": "steps", "milestones": (3.0, 9.0)}, "milestones must rise"),
        ({"steps": 9, "decay": "steps", "milestones": (3.0,), "warmup": 3.0}, "after the warm-up"),
        ({"steps": 1, "learning_rate": 0.0}, "learning_rate must be above 0"),
        ({"steps": 5, "warmup": 5.0}, "warmup must be shorter"),
    ],
)
def test_wrong_schedules_are_refused(fields, message):
    with pytest.raises(ConfigError, match=message):
        Schedule(**fields)
