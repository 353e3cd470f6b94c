"""Batch normalisation against numpy, and frozen by path."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hcml_jax.models.layers import BatchNorm, TrainMode


def normalised(x, groups):
    x = x.reshape(groups, -1, x.shape[-1])
    return (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-5)


@pytest.mark.parametrize("group", [0, 2])
def test_batch_norm_takes_statistics_over_groups_of_clips(group):
    x = np.random.default_rng(0).normal(2, 3, size=(6, 2, 3, 3, 4)).astype(np.float32)
    layer = BatchNorm()
    variables = layer.init(jax.random.key(0), x, False)
    y, state = layer.apply(variables, x, TrainMode(batch_norm_group=group), mutable=["batch_stats"])
    groups = 1 if group == 0 else 3
    np.testing.assert_allclose(y, normalised(x, groups).reshape(x.shape), atol=1e-5)
    mean = x.reshape(groups, -1, 4).mean(1).mean(0)
    var = x.reshape(groups, -1, 4).var(1).mean(0)
    np.testing.assert_allclose(state["batch_stats"]["mean"], 0.1 * mean, rtol=1e-5)
    np.testing.assert_allclose(state["batch_stats"]["var"], 0.9 + 0.1 * var, rtol=1e-5)


def test_batch_norm_frozen_by_path_uses_and_keeps_its_running_statistics():
    x = np.random.default_rng(0).normal(2, 3, size=(4, 1, 2, 2, 3)).astype(np.float32)
    layer = BatchNorm()
    variables = layer.init(jax.random.key(0), x, False)
    stats = {"mean": jnp.full(3, 1.0), "var": jnp.full(3, 4.0)}
    variables = {**variables, "batch_stats": stats}
    frozen = TrainMode(trainable=lambda path: False)
    y, state = layer.apply(variables, x, frozen, mutable=["batch_stats"])
    np.testing.assert_allclose(y, (x - 1) / np.sqrt(4 + 1e-5), rtol=1e-5)
    assert all(np.array_equal(state["batch_stats"][k], stats[k]) for k in stats)


def test_batch_norm_keeps_bfloat16_and_computes_in_float32():
    x = (1000 + np.arange(64)).reshape(64, 1, 1, 1, 1)  # bfloat16 sums would lose the small steps
    layer = BatchNorm()
    variables = layer.init(jax.random.key(0), jnp.zeros((1, 1, 1, 1, 1)), False)
    y, _ = layer.apply(variables, jnp.asarray(x, jnp.bfloat16), True, mutable=["batch_stats"])
    assert y.dtype == jnp.bfloat16
    expected = normalised(np.asarray(jnp.asarray(x, jnp.bfloat16), np.float32), 1)
    np.testing.assert_allclose(np.asarray(y, np.float32).ravel(), expected.ravel(), atol=0.02)


def test_batch_norm_groups_must_divide_the_batch():
    layer = BatchNorm()
    x = jnp.zeros((6, 1, 1, 1, 2))
    variables = layer.init(jax.random.key(0), x, False)
    with pytest.raises(ValueError, match="6 clips does not divide into batch-norm groups of 4"):
        layer.apply(variables, x, TrainMode(batch_norm_group=4), mutable=["batch_stats"])
