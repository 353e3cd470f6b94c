"""Convolutions against a plain 3-D convolution, batch normalisation against numpy, freezing by path."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hcml_jax.models.convolution import convolve
from hcml_jax.models.layers import BatchNorm, TrainMode
from hcml_jax.models.pool import max_pool


def conv3d_loop(x, kernel, strides):
    """A convolution as nested loops over output positions."""
    pads = [(k // 2, k // 2) for k in kernel.shape[:3]]
    x = np.pad(x, [(0, 0), *pads, (0, 0)])
    sizes = [(x.shape[1 + d] - kernel.shape[d]) // strides[d] + 1 for d in range(3)]
    out = np.zeros((x.shape[0], *sizes, kernel.shape[-1]))
    for t, y, z in np.ndindex(*sizes):
        a, b, c = t * strides[0], y * strides[1], z * strides[2]
        patch = x[:, a : a + kernel.shape[0], b : b + kernel.shape[1], c : c + kernel.shape[2]]
        out[:, t, y, z] = np.einsum("nabci,abcio->no", patch, kernel)
    return out


@pytest.mark.parametrize("kernel", [(1, 1, 1), (1, 3, 3), (1, 7, 7), (3, 1, 1), (3, 3, 3)])
@pytest.mark.parametrize("strides", [(1, 1, 1), (1, 2, 2), (2, 2, 2)])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_convolution_equals_a_numpy_loop(kernel, strides, dtype):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 5, 6, 7, 3))
    weights = rng.normal(size=(*kernel, 3, 4)) / np.prod(kernel)
    result = convolve(jnp.asarray(x, dtype), jnp.asarray(weights, dtype), strides)
    assert result.dtype == dtype
    tolerance = 1e-5 if dtype == jnp.float32 else 5e-2
    expected = conv3d_loop(x, weights, strides)
    np.testing.assert_allclose(np.asarray(result, np.float32), expected, atol=tolerance * 4)


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


def test_max_pool_covers_three_by_three():
    x = np.random.default_rng(0).normal(size=(1, 2, 5, 5, 1)).astype(np.float32)
    y = np.asarray(max_pool(jnp.asarray(x), (1, 3, 3), (1, 2, 2)))
    assert y.shape == (1, 2, 3, 3, 1)
    assert y[0, 1, 1, 1, 0] == x[0, 1, 1:4, 1:4, 0].max()
    assert y[0, 0, 0, 0, 0] == x[0, 0, :2, :2, 0].max()


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_max_pool_passes_its_gradient_to_the_greatest(dtype):
    x = np.random.default_rng(0).permutation(25).reshape(1, 1, 5, 5, 1)  # no two alike
    differentiate = jax.grad(lambda x: max_pool(x, (1, 3, 3), (1, 2, 2)).sum())
    gradient = jax.jit(differentiate)(jnp.asarray(x, dtype))
    expected = np.zeros((5, 5))
    padded = np.pad(x[0, 0, ..., 0], 1, constant_values=-1)
    for i, j in np.ndindex(3, 3):
        window = padded[2 * i : 2 * i + 3, 2 * j : 2 * j + 3]
        expected[tuple(np.argwhere(x[0, 0, ..., 0] == window.max())[0])] += 1
    np.testing.assert_array_equal(np.asarray(gradient, np.float32)[0, 0, ..., 0], expected)
