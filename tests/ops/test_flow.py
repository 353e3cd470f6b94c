import math

import flow_vis
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hcml_jax.ops import end_point_error, flow_to_image, rotate_flow

colors_of = jax.jit(flow_to_image)


def random_flow(shape=(2, 3, 4, 5, 2)):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def wheel_by_hand():
    """The published wheel as a list of (r, g, b) in 0..255."""
    wheel = []
    wheel += [(255, 255 * i // 15, 0) for i in range(15)]  # red to yellow
    wheel += [(255 - 255 * i // 6, 255, 0) for i in range(6)]  # yellow to green
    wheel += [(0, 255, 255 * i // 4) for i in range(4)]  # green to cyan
    wheel += [(0, 255 - 255 * i // 11, 255) for i in range(11)]  # cyan to blue
    wheel += [(255 * i // 13, 0, 255) for i in range(13)]  # blue to magenta
    wheel += [(255, 0, 255 - 255 * i // 6) for i in range(6)]  # magenta to red
    return wheel


def color_by_hand(u, v, max_radius):
    """One pixel, from the description in Baker et al."""
    wheel = wheel_by_hand()
    radius = math.sqrt(u * u + v * v) / max_radius
    place = (math.atan2(-v, -u) / math.pi + 1) / 2 * (len(wheel) - 1)
    low = math.floor(place)
    color = []
    for a, b in zip(wheel[low], wheel[(low + 1) % len(wheel)], strict=True):
        hue = ((1 - (place - low)) * a + (place - low) * b) / 255
        color.append(1 - radius * (1 - hue) if radius <= 1 else 0.75 * hue)
    return color


def test_colors_equal_the_published_wheel():
    flow = random_flow()
    colors = colors_of(flow)
    assert colors.shape == (2, 3, 4, 5, 3)
    for b, t in np.ndindex(2, 3):
        longest = np.linalg.norm(flow[b, t], axis=-1).max() * (1 + 1e-7)
        expected = [[color_by_hand(u, v, longest) for u, v in row.tolist()] for row in flow[b, t]]
        np.testing.assert_allclose(colors[b, t], expected, atol=1e-5)


def test_flow_beyond_the_given_radius_is_darkened():
    flow = random_flow((4, 5, 2))
    expected = [[color_by_hand(u, v, 0.8) for u, v in row.tolist()] for row in flow]
    np.testing.assert_allclose(colors_of(flow, 0.8), expected, atol=1e-5)
    assert np.mean(np.linalg.norm(flow, axis=-1) > 0.8) > 0.3


@pytest.mark.parametrize(
    ("direction", "name", "color"),
    [
        ((1, 0), "red", (1, 0, 0)),
        ((0, 1), "yellow", (1, 0.9, 0)),
        ((-1, 0), "sky blue", (0, 0.82, 1)),
        ((0, -1), "violet", (0.345, 0, 1)),
    ],
)
def test_colors_of_the_axes(direction, name, color):
    flow = np.broadcast_to(np.float32(direction), (2, 2, 2))
    np.testing.assert_allclose(colors_of(flow)[0, 0], color, atol=5e-3, err_msg=name)


def test_zero_flow_is_white_and_unknown_flow_black():
    flow = np.zeros((2, 2, 2), np.float32)
    np.testing.assert_array_equal(colors_of(flow), 1)
    flow[0, 0, 1], flow[1, 1] = np.nan, (3, 0)
    colors = colors_of(flow)
    np.testing.assert_array_equal(colors[0, 0], 0)
    np.testing.assert_allclose(colors[1, 1], [1, 0, 0], atol=1e-6)


def test_a_radius_for_each_frame():
    flow = random_flow((3, 4, 5, 2))
    radii = np.float32([1, 2, 3])
    np.testing.assert_array_equal(colors_of(flow, radii)[1], colors_of(flow[1], 2.0))


def test_colors_equal_those_of_flow_vis():
    flow = random_flow((6, 8, 2))
    expected = flow_vis.flow_to_color(flow, convert_to_bgr=False)
    assert np.abs(np.floor(255 * np.asarray(colors_of(flow))) - expected).max() <= 1  # it adds 1e-5 to the radius


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_a_positive_angle_turns_right_towards_down(dtype):
    flow = jnp.zeros((2, 3, 1, 1, 2), dtype).at[..., 0].set(2)
    angles = np.float32([math.pi / 2, math.pi / 6])
    turned = jax.jit(rotate_flow)(flow, angles[:, None])
    assert turned.dtype == dtype and turned.shape == flow.shape
    expected = [(0, 2), (2 * math.cos(math.pi / 6), 1)]
    np.testing.assert_allclose(turned[:, 2, 0, 0].astype(float), expected, atol=1e-6 if dtype == jnp.float32 else 0.01)


def test_turning_keeps_lengths_and_turns_back():
    flow = random_flow()
    angle = np.random.default_rng(1).uniform(-4, 4, (2, 1))
    turned = rotate_flow(flow, angle)
    np.testing.assert_allclose(np.linalg.norm(turned, axis=-1), np.linalg.norm(flow, axis=-1), rtol=1e-5)
    np.testing.assert_allclose(rotate_flow(turned, -angle), flow, atol=1e-5)
    with pytest.raises(ValueError, match=r"angle: expected a shape that broadcasts to \[2, 3\], found \[2\]"):
        rotate_flow(flow, np.zeros(2))


def test_end_point_error_is_the_mean_length():
    flow = np.zeros((2, 4, 5, 2), np.float32)
    target = flow + np.float32([3, 4])
    np.testing.assert_allclose(end_point_error(flow, target), [5, 5])


def test_end_point_error_counts_valid_pixels_only():
    flow, target = random_flow((2, 4, 5, 2)), np.zeros((2, 4, 5, 2), np.float32)
    valid = np.zeros((2, 4, 5), bool)
    valid[:, 1, 2:4] = True
    target[0, 0] = np.nan
    expected = np.linalg.norm(flow[:, 1, 2:4], axis=-1).mean(-1)
    np.testing.assert_allclose(end_point_error(flow, target, valid), expected, rtol=1e-6)


def test_end_point_error_of_no_pixel_is_nan():
    assert np.isnan(end_point_error(random_flow(), random_flow(), np.zeros((2, 3, 4, 5), bool))).all()


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"flow: expected shape \[..., H, W, 2\]"):
        flow_to_image(np.zeros((4, 5, 3), np.float32))
    with pytest.raises(ValueError, match="target: the shape of flow"):
        end_point_error(random_flow(), random_flow()[1:])
    with pytest.raises(ValueError, match="valid"):
        end_point_error(random_flow(), random_flow(), np.ones((4, 5), bool))
