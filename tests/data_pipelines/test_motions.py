"""Paths against closed forms, and the constructions that keep single frames silent."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data_pipelines.config import ELEMENTARY, FAMILIES, RELATIONAL, SpritesConfig
from data_pipelines.motions import MOTIONS, draw_motion, frame_times

CONFIG = SpritesConfig()


def make_path(name, seed=0):
    draw = draw_motion(jax.random.key(seed), jnp.float32(10), CONFIG)
    path = MOTIONS[name](draw, frame_times(CONFIG.frames))
    return jax.device_get(draw), jax.device_get(path)


def distances(name):
    draw, path = make_path(name)
    gap = np.linalg.norm(path.centre[:, 1] - path.centre[:, 0], axis=-1)
    return (gap - draw.contact) / draw.closing


def test_every_class_has_a_motion():
    assert list(MOTIONS) == list(FAMILIES)


@pytest.mark.parametrize(
    ("name", "direction"),
    [("translate_left", (-1, 0)), ("translate_right", (1, 0)), ("translate_up", (0, -1)), ("translate_down", (0, 1))],
)
def test_translations_move_by_the_speed_each_frame(name, direction):
    draw, path = make_path(name)
    expected = np.tile(draw.speed * np.array(direction), (CONFIG.frames - 1, 1))
    np.testing.assert_allclose(np.diff(path.centre[:, 0], axis=0), expected, atol=1e-4)
    assert np.ptp(path.angle) == np.ptp(path.scale) == 0


@pytest.mark.parametrize(("name", "sign"), [("clockwise", 1), ("counterclockwise", -1)])
def test_rotations_turn_in_place(name, sign):
    draw, path = make_path(f"rotate_{name}")
    np.testing.assert_allclose(np.diff(path.angle[:, 0]), sign * draw.rotation, rtol=1e-4)
    assert np.ptp(path.centre[:, 0], axis=0).max() == 0


def test_zooms_take_the_same_sizes_in_opposite_order_and_others_keep_one_of_them():
    draw, zoom_in = make_path("zoom_in")
    np.testing.assert_allclose(np.diff(np.log(zoom_in.scale[:, 0])), draw.growth, rtol=1e-3)
    zoom_out = make_path("zoom_out")[1].scale[:, 0]
    np.testing.assert_allclose(zoom_out, zoom_in.scale[::-1, 0], rtol=1e-5)
    kept = [make_path(name)[1].scale[0, 0] for name in ELEMENTARY[:6]]
    assert len(set(kept)) == 1 and np.isclose(kept[0], zoom_out).any()


def test_there_and_back_ends_where_it_began_and_turns_in_the_middle():
    draw, path = make_path("right_then_left")
    x = path.centre[:, 0, 0]
    np.testing.assert_allclose(x, x[::-1], atol=1e-5)
    np.testing.assert_allclose(np.diff(x)[:3], draw.speed, rtol=1e-4)
    other = make_path("left_then_right")[1].centre[:, 0, 0]
    np.testing.assert_allclose(other - draw.start[0], draw.start[0] - x, atol=1e-4)


def test_speeding_up_is_slowing_down_played_backwards_at_the_same_mean_speed():
    draw, path = make_path("speed_up")
    steps = np.diff(path.centre[:, 0], axis=0) @ draw.heading
    assert (np.diff(steps) > 0).all() and steps[-1] > 3 * steps[0] > 0
    assert steps.mean() == pytest.approx(draw.speed, rel=1e-4)
    slow = make_path("slow_down")[1].centre[:, 0]
    np.testing.assert_allclose(np.diff(slow, axis=0) @ draw.heading, steps[::-1], rtol=1e-3)


def test_pairs_take_the_same_distances_in_different_orders():
    ladder = np.arange(CONFIG.frames) + 0.5
    np.testing.assert_allclose(distances("approach"), ladder[::-1], rtol=1e-4)
    np.testing.assert_allclose(distances("separate"), ladder, rtol=1e-4)
    bounce = distances("collide_and_bounce")
    np.testing.assert_allclose(sorted(bounce), ladder, rtol=1e-4)
    assert np.sign(np.diff(bounce)).tolist() == [-1, -1, -1, -1, 1, 1, 1]
    follow = distances("follow")
    assert np.ptp(follow) < 1e-4 and np.isclose(follow[0], ladder, rtol=1e-4).any()


def test_only_followers_move_together_and_the_others_stay_where_followers_pass():
    draw, follow = make_path("follow")
    middle = follow.centre.mean(1)
    steps = np.diff(middle, axis=0)
    np.testing.assert_allclose(steps, np.tile(draw.closing * draw.heading, (7, 1)), atol=1e-4)
    for name in set(RELATIONAL) - {"follow"}:
        still = make_path(name)[1].centre.mean(1)
        assert np.ptp(still, axis=0).max() < 1e-4
        assert np.isclose(still[0], middle, atol=1e-4).all(1).any()


def test_draws_keep_to_their_ranges_and_fill_them():
    keys = jax.random.split(jax.random.key(1), 500)
    draws = jax.jit(jax.vmap(lambda key: draw_motion(key, jnp.float32(10), CONFIG)))(keys)
    for field, (low, high) in {
        "speed": CONFIG.speed,
        "rotation": CONFIG.rotation,
        "growth": np.log(CONFIG.zoom),
        "closing": CONFIG.closing_speed,
        "start": (0, CONFIG.size),
        "angles": (0, 2 * np.pi),
        "moments": (-3.5, 3.5),
    }.items():
        values = np.asarray(getattr(draws, field))
        assert low - 1e-6 <= values.min() and values.max() <= high + 1e-6
        assert np.ptp(values) > 0.95 * (high - low), field
