"""Schedules against closed forms; weight decay and clipping where they belong."""

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


def test_the_rate_is_not_scaled_where_per_clips_is_zero():
    schedule = Schedule(steps=10, learning_rate=0.1, per_clips=0)
    np.testing.assert_allclose(learning_rate(schedule, 80, 64)(0), 0.1)


def test_weight_decay_spares_vectors():
    optimizer = make_optimizer(
        Schedule(steps=10, learning_rate=1.0, per_clips=0, weight_decay=0.1), 80, 8
    )
    params = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}
    zeros = {"kernel": jnp.zeros((2, 2)), "bias": jnp.zeros(2)}
    updates, _ = optimizer.update(zeros, optimizer.init(params), params)
    np.testing.assert_allclose(updates["kernel"], -0.1)
    np.testing.assert_allclose(updates["bias"], 0)


def test_gradients_are_clipped_by_their_global_norm():
    schedule = Schedule(steps=10, learning_rate=1.0, per_clips=0, weight_decay=0.0, clip_norm=1.0)
    optimizer = make_optimizer(schedule, 80, 8)
    params = {"a": jnp.zeros(1), "b": jnp.zeros(1)}
    updates, _ = optimizer.update(
        {"a": jnp.array([3.0]), "b": jnp.array([4.0])}, optimizer.init(params), params
    )
    np.testing.assert_allclose([updates["a"][0], updates["b"][0]], [-0.6, -0.8], rtol=1e-6)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "`epochs` or `steps`"),
        ({"epochs": 1.0, "steps": 1}, "`epochs` or `steps`"),
        ({"steps": 1, "optimizer": "lars"}, "optimizer must be"),
        ({"steps": 1, "learning_rate": 0.0}, "learning_rate must be above 0"),
        ({"steps": 5, "warmup": 5.0}, "warmup must be shorter"),
    ],
)
def test_wrong_schedules_are_refused(fields, message):
    with pytest.raises(ConfigError, match=message):
        Schedule(**fields)
