"""Pools against numpy loops."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hcml_jax.models.convolution import as_defined, paddings
from hcml_jax.models.pool import max_pool, mean_pool

CASES = [
    ((1, 3, 3), (1, 2, 2)),
    ((3, 3, 3), (1, 1, 1)),
    ((3, 3, 3), (2, 2, 2)),
    ((2, 2, 2), (2, 2, 2)),
    ((1, 2, 2), (1, 2, 2)),
]


def windows(x, window, strides, padding):
    """Of each outcome: its index, and the indices of the cells of `x` that it sees, in order."""
    pads = paddings(x.shape[1:4], window, strides, padding)
    counts = [(n + sum(pad) - k) // s + 1 for n, k, s, pad in zip(x.shape[1:4], window, strides, pads, strict=True)]
    for b, c in itertools.product(range(x.shape[0]), range(x.shape[-1])):
        for at in itertools.product(*map(range, counts)):
            ranges = [
                range(max(0, a * s - low), min(n, a * s - low + k))
                for a, s, (low, _), n, k in zip(at, strides, pads, x.shape[1:4], window, strict=True)
            ]
            yield (b, *at, c), [(b, *cell, c) for cell in itertools.product(*ranges)]


@pytest.mark.parametrize(("window", "strides"), CASES)
@pytest.mark.parametrize("padding", ["half", "same", "valid"])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_the_greatest_wins_and_the_first_of_equals_gets_the_gradient(window, strides, padding, dtype):
    rng = np.random.default_rng(0)
    x = rng.integers(-4, 4, (2, 4, 5, 6, 2)).astype(np.float32)  # many alike
    y, backward = jax.vjp(lambda x: max_pool(x, window, strides, padding), jnp.asarray(x, dtype))
    gradient = rng.integers(1, 4, y.shape).astype(np.float32)
    expected, moved = np.zeros(y.shape), np.zeros(x.shape)
    for at, cells in windows(x, window, strides, padding):
        first = max(cells, key=lambda cell: x[cell])
        expected[at] = x[first]
        moved[first] += gradient[at]
    np.testing.assert_array_equal(np.asarray(y, np.float32), expected)
    (found,) = backward(jnp.asarray(gradient, dtype))
    np.testing.assert_array_equal(np.asarray(found, np.float32), moved)


def test_devices_other_than_cpu_run_the_same_pool():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(1, 4, 5, 6, 2)), jnp.float32)

    def pool_and_gradient(case):
        return jax.jit(jax.value_and_grad(lambda x: jnp.square(max_pool(x, *case)).sum()))(x)

    for case in CASES:
        expected = pool_and_gradient(case)
        with as_defined():
            found = pool_and_gradient(case)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), found, expected)


@pytest.mark.parametrize("size", [(2, 7, 7), (4, 8, 9), (1, 3, 5), (3, 2, 7)])
def test_mean_pool_is_the_mean_of_a_sliding_window(size):
    x = np.random.default_rng(0).normal(size=(2, *size, 3)).astype(np.float32)
    window = [min(n, k) for n, k in zip(size, (2, 7, 7), strict=True)]
    views = np.lib.stride_tricks.sliding_window_view(x, window, (1, 2, 3))
    np.testing.assert_allclose(
        mean_pool(jnp.asarray(x), (2, 7, 7)), views.mean((1, 2, 3, 5, 6, 7)), rtol=1e-5, atol=1e-6
    )
