import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hcml_jax.ops import avg_pool_to, resize_area, resize_flow


def random(shape, dtype=np.float32):
    return jnp.asarray(np.random.default_rng(0).normal(size=shape), dtype)


def area_by_subpixels(image, height, width):
    """Repeats each pixel so often that every new cell is a block of whole ones."""
    image = np.asarray(image, np.float64).repeat(height, 0).repeat(width, 1)
    H, W, C = image.shape
    return image.reshape(height, H // height, width, W // width, C).mean((1, 3))


@pytest.mark.parametrize("size", [(3, 4), (6, 8), (1, 1), (4, 3), (5, 7), (9, 12)])
def test_area_is_the_mean_of_what_a_pixel_covers(size):
    image = random((6, 8, 3))
    np.testing.assert_allclose(resize_area(image, *size), area_by_subpixels(image, *size), atol=1e-6)


@pytest.mark.parametrize("size", [(3, 4), (4, 3)])
def test_area_keeps_leading_axes_and_dtype(size):
    images = random((2, 5, 6, 8, 3), jnp.bfloat16)
    resized = resize_area(images, *size)
    assert resized.shape == (2, 5, *size, 3)
    assert resized.dtype == jnp.bfloat16
    expected = area_by_subpixels(images[1, 2], *size)
    np.testing.assert_allclose(np.asarray(resized[1, 2], float), expected, rtol=2**-8, atol=1e-6)


@pytest.mark.parametrize("size", [(3, 4), (4, 3)])
def test_area_gradient_is_its_adjoint(size):
    image, seed = random((6, 8, 3)), random((*size, 3))
    resized, pullback = jax.vjp(lambda x: resize_area(x, *size), image)
    assert jnp.vdot(resized, seed) == pytest.approx(float(jnp.vdot(image, pullback(seed)[0])), rel=1e-4)
    np.testing.assert_allclose(jnp.sum(pullback(jnp.ones_like(seed))[0]), seed.size, rtol=1e-5)


def test_pooling_is_the_mean_of_blocks_in_time_and_space():
    features = random((2, 4, 6, 8, 3))
    pooled = avg_pool_to(features, 2, 3, 2)
    expected = np.asarray(features).reshape(2, 2, 2, 3, 2, 2, 4, 3).mean((2, 4, 6))
    np.testing.assert_allclose(pooled, expected, atol=1e-6)


def test_pooling_to_frames_that_do_not_divide():
    features = random((2, 5, 4, 4, 3))
    x = np.asarray(features)
    expected = np.stack([x[:, 0] + x[:, 1] + x[:, 2] / 2, x[:, 2] / 2 + x[:, 3] + x[:, 4]], 1) / 2.5
    np.testing.assert_allclose(avg_pool_to(features, 2, 4, 4), expected, atol=1e-6)


def test_the_same_size_is_the_identity():
    features = random((2, 4, 6, 8, 2))
    np.testing.assert_array_equal(avg_pool_to(features, 4, 6, 8), features)
    np.testing.assert_array_equal(resize_flow(features, 6, 8), features)


@pytest.mark.parametrize(("size", "value"), [((12, 32), (12, 10)), ((3, 2), (0.75, 2.5))])
def test_flow_values_scale_with_width_and_height(size, value):
    flow = np.broadcast_to(np.float32([3, 5]), (2, 6, 8, 2))
    expected = np.broadcast_to(value, (2, *size, 2))
    np.testing.assert_allclose(resize_flow(flow, *size), expected, rtol=1e-6)


def test_flow_is_interpolated_between_pixel_centres():
    flow = np.zeros((1, 4, 2), np.float32)
    flow[0, :, 0] = np.arange(4)
    # The centres of the finer pixels lie a quarter of a coarse one to either side; borders clamp.
    positions = np.clip((np.arange(8) + 0.5) / 2 - 0.5, 0, 3)
    np.testing.assert_allclose(resize_flow(flow, 1, 8)[0, :, 0], 2 * positions, atol=1e-6)


def test_flow_keeps_its_dtype():
    assert resize_flow(random((4, 4, 2), jnp.bfloat16), 8, 8).dtype == jnp.bfloat16


def test_wrong_input_is_refused():
    with pytest.raises(ValueError, match="size of at least 1"):
        resize_area(random((4, 4, 3)), 0, 4)
    for size in ((4, 0), (0, 4)):
        with pytest.raises(ValueError, match="size of at least 1"):
            resize_flow(random((4, 4, 2)), *size)
    with pytest.raises(ValueError, match=r"flow: expected shape \[..., H, W, 2\]"):
        resize_flow(random((4, 4, 3)), 4, 4)
    with pytest.raises(ValueError, match=r"features: expected shape \[B, T, H, W, C\]"):
        avg_pool_to(random((4, 4, 4, 3)), 2, 2, 2)
