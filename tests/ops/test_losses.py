import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hcml_jax.ops import charbonnier, photometric_loss, smoothness_loss

ALPHA, EPSILON = 0.45, 1e-3


def rho(z):
    return (z**2 + EPSILON**2) ** ALPHA


def images(seed, shape=(2, 3, 4, 5, 3)):
    return np.random.default_rng(seed).uniform(size=shape).astype(np.float32)


def some_valid(shape=(2, 3, 4, 5)):
    return np.random.default_rng(9).uniform(size=shape) < 0.7


def test_charbonnier_closed_forms():
    assert charbonnier(jnp.float32(0), ALPHA, EPSILON) == pytest.approx(EPSILON**0.9, rel=1e-5)
    assert charbonnier(jnp.float32(-3), 0.5, 4.0) == pytest.approx(5)
    assert jax.grad(charbonnier)(jnp.float32(0)) == 0


def test_photometric_is_equation_1():
    target, warped, valid = images(0), images(1), some_valid()
    total = 0.0
    for index in np.ndindex(2, 3, 4, 5):
        if valid[index]:
            total += np.mean([rho(float(a) - float(b)) for a, b in zip(target[index], warped[index], strict=True)])
    loss = photometric_loss(target, warped, valid)
    assert loss == pytest.approx(total / valid.size, rel=1e-5)
    by_valid = photometric_loss(target, warped, valid, normalise_by_valid=True)
    assert by_valid == pytest.approx(total / valid.sum(), rel=1e-5)


def test_a_mask_of_numbers_is_the_same_as_of_booleans():
    args = images(0), images(1)
    as_numbers = photometric_loss(*args, some_valid().astype(np.float32))
    assert as_numbers == photometric_loss(*args, some_valid())


@pytest.mark.parametrize("normalise_by_valid", [False, True])
def test_invalid_pixels_have_no_say_even_when_nan(normalise_by_valid):
    def loss(warped, valid):
        return photometric_loss(images(0), warped, valid, normalise_by_valid=normalise_by_valid)

    valid = some_valid()
    spoiled = np.where(valid[..., None], images(1), np.nan).astype(np.float32)
    assert loss(spoiled, valid) == loss(images(1), valid)
    gradient = jax.grad(loss)(spoiled, valid)
    np.testing.assert_array_equal(gradient == 0, np.broadcast_to(~valid[..., None], spoiled.shape))
    assert loss(images(1), np.zeros_like(valid)) == 0


def test_photometric_takes_its_mean_in_float32():
    ones = jnp.ones((300, 300, 1), jnp.bfloat16)
    loss = photometric_loss(ones, 0 * ones, np.ones((300, 300), bool))
    assert loss.dtype == jnp.float32
    assert loss == pytest.approx(rho(1), rel=1e-5)


def test_smoothness_is_equation_2_by_the_mean():
    flow = np.random.default_rng(0).normal(size=(2, 3, 4, 5, 2)).astype(np.float32)
    terms = [np.mean(rho(np.diff(flow[..., c].astype(float), axis=a))) for c in (0, 1) for a in (2, 3)]
    assert smoothness_loss(flow) == pytest.approx(sum(terms), rel=1e-5)


def test_smoothness_of_a_shear_in_closed_form():
    v = 2.0 * np.arange(6)  # V rises by 2 a column, all else is constant
    flow = np.stack(np.broadcast_arrays(np.float32(1), v, np.zeros((4, 6)))[:2], -1)
    assert smoothness_loss(flow) == pytest.approx(rho(2) + 3 * rho(0), rel=1e-5)


def test_smoothness_has_a_finite_gradient_where_flow_is_flat():
    np.testing.assert_array_equal(jax.jit(jax.grad(smoothness_loss))(jnp.ones((3, 4, 2))), 0)


def test_shapes_that_do_not_fit_are_refused():
    valid = some_valid()
    with pytest.raises(ValueError, match="warped: the shape of target"):
        photometric_loss(images(0), images(1)[:, 1:], valid)
    with pytest.raises(ValueError, match="valid"):
        photometric_loss(images(0), images(1), valid[..., None])
    with pytest.raises(ValueError, match=r"flow: expected shape \[..., H, W, 2\]"):
        smoothness_loss(images(0))
    with pytest.raises(ValueError, match="at least 2"):
        smoothness_loss(jnp.zeros((1, 5, 2)))
