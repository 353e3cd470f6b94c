import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from hcml_jax.ops import cost_volume, cost_volume_by_shifts

FORMS = [cost_volume, cost_volume_by_shifts]
SHAPE = (2, 3, 5, 7, 4)  # neither height nor width divides by the strides below


def volume_of(x, d, s, form=cost_volume):
    return jax.jit(form, static_argnames=("max_displacement", "stride"))(x, max_displacement=d, stride=s)


def gradient_of(form, x, seed, d, s):
    volume = functools.partial(form, max_displacement=d, stride=s)
    return jax.jit(lambda x, seed: jax.vjp(volume, x)[1](seed)[0])(x, seed)


def features(dtype=np.float32, shape=SHAPE):
    return jnp.asarray(np.random.default_rng(0).normal(size=shape), dtype)


def volume_by_loops(features, max_displacement, stride):
    """The definition, position by position, in float64."""
    features = np.asarray(features, np.float64)
    B, T, H, W, _ = features.shape
    reach = stride * (max_displacement // stride)
    steps = range(-reach, reach + 1, stride)
    volume = np.zeros((B, T, H, W, len(steps) ** 2))
    for b, t, y, x in np.ndindex(B, T, H, W):
        for m, (dy, dx) in enumerate((dy, dx) for dy in steps for dx in steps):
            if 0 <= y + dy < H and 0 <= x + dx < W:
                here, there = features[b, t, y, x], features[b, min(t + 1, T - 1), y + dy, x + dx]
                length = np.linalg.norm(here) * np.linalg.norm(there)
                volume[b, t, y, x, m] = here @ there / length if length else 0
    return volume


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("d", "s"), [(0, 1), (2, 1), (4, 2), (5, 2), (6, 3), (1, 2), (9, 4)])
def test_equals_the_loops(form, d, s):
    volume = volume_of(features(), d, s, form)
    assert volume.shape == (*SHAPE[:4], (2 * (d // s) + 1) ** 2)
    expected = volume_by_loops(features(), d, s)
    np.testing.assert_allclose(volume, expected, atol=1e-6)


@pytest.mark.parametrize("form", FORMS)
def test_bfloat16_is_summed_in_float32_and_returned_in_bfloat16(form):
    x = features(jnp.bfloat16, (1, 2, 4, 4, 256))
    volume = volume_of(x, 2, 1, form)
    assert volume.dtype == jnp.bfloat16
    # Half a unit in the last place is all that rounding the result may cost.
    expected = volume_by_loops(x, 2, 1)
    np.testing.assert_allclose(np.asarray(volume, np.float64), expected, rtol=2**-8, atol=1e-6)


@pytest.mark.parametrize("form", FORMS)
def test_a_moved_frame_matches_at_its_displacement(form):
    frame = features(shape=(1, 1, 8, 8, 16))
    moved = jnp.roll(frame, (2, -4), axis=(2, 3))
    volume = volume_of(jnp.concatenate([frame, moved], 1), 4, 2, form)
    best = volume[0, 0, 2:6, 4:].argmax(-1)
    np.testing.assert_array_equal(best, 3 * 5 + 0)  # dy = 2 is fourth of five, dx = -4 the first
    np.testing.assert_allclose(volume[0, 1, ..., 12], 1, atol=1e-6)  # last frame against itself


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_zero_vectors_give_zero_and_finite_gradients(form, dtype):
    x = features(dtype).at[:, :, 2:4].set(0)
    volume = volume_of(x, 2, 2, form)
    gradient = gradient_of(form, x, jnp.ones_like(volume), 2, 2)
    np.testing.assert_array_equal(volume[:, :, 2:4], 0)
    np.testing.assert_array_equal(gradient[:, :, 2:4], 0)
    assert jnp.isfinite(gradient).all()
    assert (gradient[:, :, :2] != 0).any()


@pytest.mark.parametrize(("d", "s"), [(2, 1), (4, 2)])
def test_gradient_equals_finite_differences(d, s):
    x = features(shape=(1, 3, 3, 5, 2))
    check_grads(lambda x: volume_of(x, d, s), (x,), 1, ["rev"], rtol=1e-2)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_gradient_equals_the_reference(dtype):
    x = features(dtype)
    seed = jnp.asarray(np.random.default_rng(1).normal(size=(*SHAPE[:4], 25)), dtype)
    gradients = [gradient_of(form, x, seed, 5, 2) for form in FORMS]
    tolerance = 1e-5 if dtype == jnp.float32 else 2e-2
    np.testing.assert_allclose(*(np.asarray(g, np.float32) for g in gradients), atol=tolerance)


@pytest.mark.parametrize("form", FORMS)
def test_wrong_input_is_refused(form):
    with pytest.raises(ValueError, match=r"features: expected shape \[B, T, H, W, C\]"):
        form(jnp.zeros((2, 3, 4, 5)), max_displacement=2, stride=1)
    with pytest.raises(ValueError, match="stride=0"):
        form(features(), max_displacement=2, stride=0)
    with pytest.raises(ValueError, match="max_displacement=-1"):
        form(features(), max_displacement=-1, stride=1)
