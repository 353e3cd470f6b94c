"""Every way a convolution runs, against a numpy loop and XLA's own 3-D convolution."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hcml_jax.models import convolution_cpu
from hcml_jax.models.convolution import as_defined, convolve, paddings


@pytest.fixture(autouse=True)
def _patches_for_small_convolutions_too(monkeypatch):
    monkeypatch.setattr(convolution_cpu, "MUCH", 0)


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


def plain(x, kernel, strides, padding="half", groups=1):
    """XLA's own 3-D convolution."""
    if padding == "half":
        pads = [(k // 2, k // 2) for k in kernel.shape[:3]]
    else:
        pads = {"same": "SAME", "valid": "VALID"}[padding]
    layout = ("NTHWC", "THWIO", "NTHWC")
    return jax.lax.conv_general_dilated(x, kernel, strides, pads, dimension_numbers=layout, feature_group_count=groups)


# Long and short clips, few channels and many, more channels out than in and fewer, large maps and small.
CASES = [
    ((1, 9, 6, 7, 16), (3, 3, 3), 8, (1, 1, 1)),
    ((1, 3, 6, 7, 16), (3, 3, 3), 8, (1, 1, 1)),
    ((1, 2, 6, 7, 16), (3, 3, 3), 8, (1, 1, 1)),
    ((1, 1, 6, 7, 16), (3, 1, 1), 8, (2, 1, 1)),
    ((2, 11, 6, 7, 16), (3, 3, 3), 8, (2, 2, 2)),
    ((2, 12, 5, 4, 16), (7, 1, 1), 8, (2, 1, 1)),
    ((2, 48, 5, 4, 8), (5, 1, 1), 8, (8, 1, 1)),
    ((2, 9, 30, 28, 3), (3, 7, 7), 8, (1, 2, 2)),
    ((2, 9, 30, 28, 3), (7, 7, 7), 8, (2, 2, 2)),
    ((2, 2, 30, 28, 6), (1, 3, 3), 10, (1, 1, 1)),
    ((2, 2, 30, 28, 10), (1, 3, 3), 6, (1, 1, 1)),
    ((2, 2, 58, 56, 6), (1, 3, 3), 10, (1, 2, 2)),
    ((2, 2, 58, 56, 10), (1, 3, 3), 6, (1, 2, 2)),
    ((3, 7, 28, 30, 12), (3, 3, 3), 12, (1, 1, 1)),
    ((2, 3, 12, 14, 10), (1, 3, 3), 6, (1, 1, 1)),
    ((2, 3, 24, 26, 6), (1, 7, 7), 4, (1, 2, 2)),
    ((2, 5, 6, 7, 4), (1, 1, 1), 6, (2, 2, 2)),
]


def compare(case, padding, dtype, tolerance, groups=1):
    shape, window, features, strides = case
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=shape), dtype)
    kernel = rng.normal(size=(*window, shape[-1] // groups, features)) / np.prod(window) ** 0.5
    kernel = jnp.asarray(kernel, dtype)
    expected, expected_backward = jax.vjp(
        lambda x, k: plain(x, k, strides, padding, groups), *(a.astype(jnp.float32) for a in (x, kernel))
    )
    found, backward = jax.vjp(lambda x, k: convolve(x, k, strides, padding, groups), x, kernel)
    assert found.dtype == dtype
    weights = jnp.asarray(rng.normal(size=expected.shape), jnp.float32)
    results = (found, *backward(weights.astype(dtype)))
    for ours, theirs in zip(results, (expected, *expected_backward(weights)), strict=True):
        assert ours.dtype == dtype
        off = np.abs(np.asarray(ours, np.float32) - theirs).max()
        assert off <= tolerance * np.abs(theirs).max()


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("padding", ["half", "same"])
def test_outcome_and_gradients_equal_a_plain_3d_convolution(case, padding):
    compare(case, padding, jnp.float32, 1e-5)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_devices_other_than_cpu_run_the_same_convolution(case):
    with as_defined():
        compare(case, "half", jnp.float32, 1e-5)


def test_a_strided_1x1x1_is_no_product_of_a_slice_elsewhere():
    """XLA's compiler for GPUs aborts on some of those."""
    x, kernel = jnp.zeros((1, 4, 6, 6, 3)), jnp.zeros((1, 1, 1, 3, 5))
    with as_defined():
        program = str(jax.make_jaxpr(lambda x, kernel: convolve(x, kernel, (2, 2, 2)))(x, kernel))
    assert "conv_general_dilated" in program
    assert "dot_general" not in program


@pytest.mark.parametrize("case", CASES, ids=str)
def test_bfloat16_is_near_float32(case):
    compare(case, "half", jnp.bfloat16, 3e-2)


@pytest.mark.parametrize("window", [(1, 3, 3), (3, 3, 3)])
@pytest.mark.parametrize(("channels", "features", "groups"), [(12, 8, 4), (96, 48, 12), (80, 80, 2)])
def test_groups_do_not_mix(window, channels, features, groups):
    case = (2, 6, 8, 7, channels), window, features, (1, 2, 2)
    compare(case, "half", jnp.float32, 1e-5, groups)
    with as_defined():
        compare(case, "half", jnp.float32, 1e-5, groups)


def test_patches_in_parts_equal_patches_at_once(monkeypatch):
    """A few frames at a time, as large clips have it."""
    monkeypatch.setattr(convolution_cpu, "PATCH_BYTES", 1)  # two frames where they divide
    assert [len(convolution_cpu._parts((jnp.zeros((n, 30, 28, 6)),), 9 * 6)[0]) for n in (6, 5)] == [3, 5]
    for channels, features, frames in ((6, 10, 2), (10, 6, 2), (10, 6, 1)):
        compare(((3, frames, 30, 28, channels), (1, 3, 3), features, (1, 1, 1)), "half", jnp.float32, 1e-5)


def test_patches_are_for_large_convolutions_on_one_device(monkeypatch):
    """Taking frames part by part would send them about between several."""

    def loops(height, width):
        x, kernel = jnp.zeros((1, 2, height, width, 6)), jnp.zeros((1, 3, 3, 6, 10))
        step = jax.grad(lambda *args: convolve(*args, (1, 1, 1)).sum(), argnums=(0, 1))
        return str(jax.make_jaxpr(step)(x, kernel)).count("scan[")

    assert [loops(*size) for size in ((30, 28), (30, 27), (12, 14), (11, 14))] == [2, 1, 1, 0]
    with monkeypatch.context() as several:
        several.setattr(jax, "device_count", lambda: 2)
        assert loops(30, 28) == 0
    monkeypatch.setattr(convolution_cpu, "MUCH", 2 * 30 * 28 * 9 * 6 * 10 + 1)
    assert loops(30, 28) == 1  # with respect to the kernel, small ones are not worth a longer compilation


@pytest.mark.parametrize(
    ("size", "k", "stride", "expected"),
    [(8, 7, 2, (2, 3)), (9, 7, 2, (3, 3)), (5, 3, 1, (1, 1)), (7, 2, 2, (0, 1)), (8, 1, 2, (0, 0))],
)
def test_same_pads_more_behind_as_tensorflow_does(size, k, stride, expected):
    assert paddings([size], [k], [stride], "same") == [expected]
    assert paddings([size], [k], [stride], "half") == [(k // 2, k // 2)]
