import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from scipy import ndimage

from hcml_jax.ops import backward_warp

warp = jax.jit(backward_warp)


def random(seed, shape, scale=1.0):
    return np.random.default_rng(seed).normal(scale=scale, size=shape).astype(np.float32)


def test_equals_scipy_with_clamped_borders():
    images, flow = random(0, (2, 3, 6, 9, 2)), random(1, (2, 3, 6, 9, 2), scale=3)
    warped, valid = warp(images, flow)
    assert warped.shape == images.shape
    y, x = np.mgrid[:6, :9].astype(np.float32)
    for b, t, c in np.ndindex(2, 3, 2):
        at = (y + flow[b, t, ..., 1], x + flow[b, t, ..., 0])
        expected = ndimage.map_coordinates(images[b, t, ..., c], at, order=1, mode="nearest")
        np.testing.assert_allclose(warped[b, t, ..., c], expected, atol=1e-5)
        inside = (at[0] >= 0) & (at[0] <= 5) & (at[1] >= 0) & (at[1] <= 8)
        np.testing.assert_array_equal(valid[b, t], inside)
    assert 0.3 < np.mean(valid) < 0.9


def test_zero_flow_is_the_identity_and_valid_up_to_the_border():
    images = random(0, (4, 5, 3))
    warped, valid = warp(images, np.zeros((4, 5, 2), np.float32))
    np.testing.assert_array_equal(warped, images)
    assert valid.dtype == bool
    assert valid.all()


def test_flow_to_the_right_and_down_reads_from_the_right_and_below():
    image = np.arange(12, dtype=np.float32).reshape(3, 4, 1)
    warped, valid = warp(image, np.full((3, 4, 2), [2, 1], np.float32))
    np.testing.assert_array_equal(warped[:2, :2, 0], image[1:, 2:, 0])
    np.testing.assert_array_equal(valid, np.pad(np.ones((2, 2), bool), [(0, 1), (0, 2)]))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 3e38])
def test_flow_that_is_not_finite_is_not_valid_and_harms_nothing_else(bad):
    images, flow = random(0, (4, 5, 3)), np.zeros((4, 5, 2), np.float32)
    flow[1, 2, 0] = bad

    def total(images, flow):
        warped, valid = warp(images, flow)
        return jnp.sum(jnp.where(valid[..., None], warped, 0)), valid

    gradients, valid = jax.jit(jax.grad(total, (0, 1), has_aux=True))(images, flow)
    assert not valid[1, 2]
    assert valid.sum() == 19
    assert all(jnp.isfinite(g).all() for g in gradients)


def test_bfloat16_images_are_sampled_at_float32_positions():
    ramp = jnp.arange(512, dtype=jnp.float32)[None, :, None] / 512
    flow = np.full((1, 512, 2), [-0.5, 0], np.float32)
    warped, _ = warp(ramp.astype(jnp.bfloat16), flow)
    assert warped.dtype == jnp.bfloat16
    # Positions in bfloat16 would be wrong by up to 1 pixel, and so would the mask.
    np.testing.assert_allclose(np.asarray(warped, np.float32)[0, 1:, 0], (np.arange(1, 512) - 0.5) / 512, rtol=2**-7)


def test_bfloat16_flow_keeps_the_position_of_far_pixels():
    flow = jnp.zeros((1, 300, 2), jnp.bfloat16).at[..., 0].set(-1)
    image = np.arange(300, dtype=np.float32)[None, :, None]
    warped, _ = warp(image, flow)
    np.testing.assert_array_equal(warped[0, 1:, 0], np.arange(299))


def test_an_image_of_one_pixel():
    warped, valid = warp(np.ones((1, 1, 3), np.float32), np.ones((1, 1, 2), np.float32))
    np.testing.assert_array_equal(warped, 1)
    assert not valid.any()


def test_the_border_has_no_neighbour_beyond_it():
    images = random(0, (2, 4, 5, 3))
    total = jax.jit(jax.grad(lambda flow: jnp.sum(backward_warp(images, flow)[0])))
    gradient = total(jnp.zeros((2, 4, 5, 2)))
    np.testing.assert_array_equal(gradient[:, :, -1, 0], 0)
    np.testing.assert_array_equal(gradient[:, -1, :, 1], 0)
    assert (gradient[:, 1:-1, 1:-1] != 0).all()


def test_gradients_equal_finite_differences():
    # Fractions stay within (0.2, 0.8), so that a step of the check meets no corner.
    whole = np.random.default_rng(0).integers(-1, 2, (2, 4, 5, 2)).astype(np.float32)
    flow = whole + np.random.default_rng(1).uniform(0.2, 0.8, whole.shape).astype(np.float32)
    warped = jax.jit(lambda *a: backward_warp(*a)[0])
    check_grads(warped, (random(2, (2, 4, 5, 3)), flow), 1, rtol=1e-2)


@pytest.mark.parametrize(
    ("images", "flow", "message"),
    [
        ((4, 5, 3), (4, 5, 3), r"flow: expected shape \[..., H, W, 2\]"),
        ((4, 5, 3), (5, 4, 2), r"expected \(4, 5\), found \(5, 4\)"),
        ((7, 4, 5, 3), (4, 5, 2), r"expected \(7, 4, 5\), found \(4, 5\)"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(images, flow, message):
    with pytest.raises(ValueError, match=message):
        backward_warp(jnp.zeros(images), jnp.zeros(flow))


def test_integer_images_are_refused():
    with pytest.raises(ValueError, match="images: expected floating numbers, found uint8"):
        backward_warp(jnp.zeros((4, 5, 3), jnp.uint8), jnp.zeros((4, 5, 2)))
