import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from hcml_jax.ops import apply_motion_maps, flow_of_maps, guided_similarity


def rand(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def by_hand(frames, maps, dilation=1):
    """Eq. 1, pixel by pixel; beyond the border the nearest pixel."""
    out, (height, width) = np.zeros(frames.shape, np.float64), frames.shape[-3:-1]
    size = round(maps.shape[-1] ** 0.5)
    radius = size // 2
    for y, x in np.ndindex(height, width):
        for m in range(-radius, radius + 1):
            for n in range(-radius, radius + 1):
                weight = maps[..., y, x, (m + radius) * size + n + radius, None]
                row, column = np.clip(y - dilation * n, 0, height - 1), np.clip(x - dilation * m, 0, width - 1)
                out[..., y, x, :] += weight * frames[..., row, column, :]
    return out


@pytest.mark.parametrize("size", [1, 3, 5])
@pytest.mark.parametrize(("dtype", "error"), [("float32", 1e-5), ("bfloat16", 2e-2)])
def test_maps_move_frames_as_a_loop_does(size, dtype, error):
    frames, maps = (jnp.asarray(x, dtype) for x in (rand(2, 6, 7, 3), rand(2, 6, 7, size**2, seed=1)))
    found = apply_motion_maps(frames, maps)
    assert found.dtype == frames.dtype
    expected = by_hand(np.float32(frames), np.float32(maps))
    np.testing.assert_allclose(np.float32(found), expected, rtol=error, atol=error * np.abs(expected).max())


@pytest.mark.parametrize("dilation", [2, 3])
def test_filters_may_be_spread_with_holes(dilation):
    frames, maps = rand(7, 8, 3), rand(7, 8, 9, seed=1)
    found = apply_motion_maps(frames, maps, dilation=dilation)
    np.testing.assert_allclose(found, by_hand(frames, maps, dilation), rtol=1e-4, atol=1e-5)
    spread = np.zeros((7, 8, 2 * dilation + 1, 2 * dilation + 1), np.float32)
    spread[:, :, ::dilation, ::dilation] = maps.reshape(7, 8, 3, 3)

    def loss(frames, maps, **options):
        return jnp.sin(apply_motion_maps(frames, maps, **options)).sum()

    of_frames, of_maps = jax.grad(loss, argnums=(0, 1))(frames, maps, dilation=dilation)
    plain_frames, plain_maps = jax.grad(loss, argnums=(0, 1))(frames, spread.reshape(7, 8, -1))
    np.testing.assert_allclose(of_frames, plain_frames, rtol=1e-4, atol=1e-5)
    plain_maps = plain_maps.reshape(spread.shape)[:, :, ::dilation, ::dilation].reshape(maps.shape)
    np.testing.assert_allclose(of_maps, plain_maps, rtol=1e-4, atol=1e-5)


def test_one_entry_shifts():
    """m = 1 and n = -2: the pixel one column to the left and two rows below."""
    frames, maps = rand(8, 9, 3), np.zeros((8, 9, 25), np.float32)
    maps[..., (1 + 2) * 5 + (-2 + 2)] = 1
    np.testing.assert_array_equal(apply_motion_maps(frames, maps)[:-2, 1:], frames[2:, :-1])


def test_any_axes_may_lead():
    frames, maps = rand(2, 3, 4, 5, 1), rand(2, 3, 4, 5, 9, seed=1)
    found = apply_motion_maps(frames, maps)
    np.testing.assert_allclose(found[1, 2], apply_motion_maps(frames[1, 2], maps[1, 2]), rtol=1e-5)


def test_gradients_are_those_of_finite_differences():
    given = rand(1, 4, 5, 2), rand(1, 4, 5, 9, seed=1)
    check_grads(jax.jit(apply_motion_maps), given, order=1, modes=["rev"], eps=1e-2, rtol=1e-3, atol=1e-3)
    given = given[1], rand(1, 4, 5, 2, seed=2), rand(1, 4, 5, 2, seed=3)
    check_grads(jax.jit(guided_similarity), given, order=1, modes=["rev"], eps=1e-2, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("dtype", "error"), [("float32", 1e-5), ("bfloat16", 2e-2)])
def test_similarity_is_that_of_a_loop(dtype, error):
    shapes = (2, 4, 5, 9), (2, 4, 5, 6), (2, 4, 5, 6)
    maps, motion, context = (jnp.asarray(rand(*shape, seed=seed), dtype) for seed, shape in enumerate(shapes))
    found = guided_similarity(maps, motion, context)
    assert found.dtype == jnp.float32
    maps, motion, context = (np.float32(x) for x in (maps, motion, context))
    expected = np.zeros(found.shape)
    for y, x, c, m, n in np.ndindex(4, 5, 6, 3, 3):
        there = context[:, np.clip(y - n + 1, 0, 3), np.clip(x - m + 1, 0, 4), c]
        expected[:, y, x] += maps[:, y, x, m * 3 + n] * motion[:, y, x, c] * there / 6
    np.testing.assert_allclose(found, expected, rtol=error, atol=error)


def test_no_copy_is_held_for_each_entry():
    frames, maps = rand(8, 28, 28, 64), rand(8, 28, 28, 25, seed=1)
    loss = jax.grad(lambda *given: jnp.square(apply_motion_maps(*given)).sum(), argnums=(0, 1))
    temporary = jax.jit(loss).lower(frames, maps).compile().memory_analysis().temp_size_in_bytes
    assert temporary < 15 * frames.nbytes  # 25 or more, if they were held


@pytest.mark.parametrize("dilation", [1, 2])
def test_flow_is_where_filters_take_each_pixel(dilation):
    """By hand: over all pixels of the next frame, what each takes of each pixel of this one."""
    maps = rand(2, 7, 8, 25)
    total, moved = np.zeros((2, 7, 8)), np.zeros((2, 7, 8, 2))
    for b, y, x, m, n in np.ndindex(2, 7, 8, 5, 5):
        u, v, weight = dilation * (m - 2), dilation * (n - 2), max(maps[b, y, x, m * 5 + n], 0)
        if 0 <= y - v < 7 and 0 <= x - u < 8:
            total[b, y - v, x - u] += weight
            moved[b, y - v, x - u] += weight * np.array([u, v])
    expected = moved / np.where(total > 0, total, 1)[..., None]
    np.testing.assert_allclose(flow_of_maps(maps, dilation=dilation), expected, rtol=1e-4, atol=1e-5)


def test_what_moves_alone_has_flow_and_what_it_covers_none():
    maps = np.zeros((4, 9, 9), np.float32)
    maps[..., 4] = 1  # copies
    maps[:, 5, 4], maps[:, 5, 2 * 3 + 1] = 0, 1  # column 5 comes from column 4
    expected = np.zeros((4, 9, 2))
    expected[:, 4, 0] = 0.5  # it stays, too: column 4 copies it
    np.testing.assert_allclose(flow_of_maps(maps), expected, atol=1e-6)


def test_a_dilation_below_one_is_refused():
    with pytest.raises(ValueError, match="dilation: expected 1 or more, found 0"):
        apply_motion_maps(rand(8, 8, 3), rand(8, 8, 9), dilation=0)


@pytest.mark.parametrize(
    ("frames", "maps", "message"),
    [
        ((8, 8, 3), (8, 8, 16), "maps: expected k x k numbers at a pixel, k odd; found 16"),
        ((8, 8, 3), (8, 8, 10), "maps: expected k x k numbers at a pixel, k odd; found 10"),
        ((8, 4, 3), (8, 4, 25), "filters of 5 x 5 are larger than the 8 x 4 pixels"),
        ((8, 8, 3), (8, 7, 9), r"maps: frames \[..., H, W\]: expected \(8, 8\), found \(8, 7\)"),
        ((8, 8), (8, 8, 9), r"frames: expected shape \[..., H, W, C\]"),
    ],
)
def test_what_does_not_fit_is_named(frames, maps, message):
    with pytest.raises(ValueError, match=message):
        apply_motion_maps(rand(*frames), rand(*maps))


def test_motion_and_context_must_be_alike():
    with pytest.raises(ValueError, match="context: motion"):
        guided_similarity(rand(4, 4, 9), rand(4, 4, 2), rand(4, 4, 3))
