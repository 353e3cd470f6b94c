"""The rendered clips: flow that explains them, and single frames that tell nothing."""

import itertools
import subprocess
import sys

import chex
import jax
import numpy as np
import pytest
from scipy.ndimage import map_coordinates
from sklearn.ensemble import RandomForestClassifier

from data_pipelines.config import COMPOSED, ELEMENTARY, RELATIONAL, SpritesConfig
from data_pipelines.sprites import render

CONFIG = SpritesConfig()
PER_CLASS = 64
SIZE, FRAMES = CONFIG.size, CONFIG.frames


@jax.jit
def _render_class(keys, index):
    return jax.vmap(render, (0, None, None))(keys, index, CONFIG)


def render_class(keys, index):
    """(clips, flows, masks) `[PER_CLASS, ...]` of one class; one size, to compile once."""
    return jax.device_get(_render_class(keys, index))


@pytest.fixture(scope="module")
def rendered():
    """(clips, flows, masks) `[16, PER_CLASS, ...]`, with keys of their own."""

    keys = jax.random.split(jax.random.key(3), (len(CONFIG.classes), PER_CLASS))
    classes = [render_class(keys[i], i) for i in range(len(CONFIG.classes))]
    return tuple(np.stack(parts) for parts in zip(*classes, strict=True))


def of_classes(rendered, names):
    """(clips, flows, masks, labels) of some classes, one after the other."""
    indices = [CONFIG.classes.index(name) for name in names]
    parts = (part[indices].reshape(-1, *part.shape[2:]) for part in rendered)
    return *parts, np.repeat(np.arange(len(names)), PER_CLASS)


def test_shapes_and_types(rendered):
    clips, flows, masks = rendered
    lead = (16, PER_CLASS)
    chex.assert_shape(clips, (*lead, FRAMES, SIZE, SIZE, 3))
    chex.assert_shape(flows, (*lead, FRAMES - 1, SIZE, SIZE, 2))
    chex.assert_shape(masks, (*lead, FRAMES, SIZE, SIZE))
    assert (clips.dtype, flows.dtype, masks.dtype) == (np.uint8, np.float32, np.uint8)


def test_masks_show_one_sprite_or_two(rendered):
    alone = of_classes(rendered, ELEMENTARY + COMPOSED)[2]
    assert set(np.unique(alone)) == {0, 1}
    assert ((alone == 1).sum((2, 3)) > 30).all()  # in view at every frame
    pairs = of_classes(rendered, RELATIONAL)[2]
    assert set(np.unique(pairs)) == {0, 1, 2}


def test_size_and_length_are_config():
    config = SpritesConfig(size=32, frames=5, radius=(5, 6), pair_radius=(3, 4), classes=ELEMENTARY)
    clip, flow, _ = jax.eval_shape(lambda key: render(key, 2, config), jax.random.key(0))
    assert clip.shape == (5, 32, 32, 3) and flow.shape == (4, 32, 32, 2)


def test_the_next_frame_warped_back_by_the_flow_is_this_frame(rendered):
    for name in CONFIG.classes:
        clips, flows, masks, _ = of_classes(rendered, [name])
        errors, still = [], []
        for i, t in itertools.product(range(4), range(FRAMES - 1)):
            clip, mask = clips[i].astype(float), masks[i]
            warped, seen = _warp(clip[t + 1], mask[t + 1], mask[t], flows[i, t])
            seen &= mask[t] > 0  # the background is easy
            errors.extend(np.abs(warped - clip[t])[seen].ravel())
            still.extend(np.abs(clip[t + 1] - clip[t])[seen].ravel())
        # Of 255; interpolation at the seam between layers is not exact.
        assert np.mean(errors) < min(3.5, np.mean(still) / 3), name


def _warp(image, next_mask, mask, flow):
    """`image` at the places `flow` points to, and where the same layer is seen there."""
    y, x = np.mgrid[:SIZE, :SIZE]
    places = np.stack([y + flow[..., 1], x + flow[..., 0]])
    warped = [map_coordinates(image[..., c], places, order=3, mode="nearest") for c in range(3)]
    inside = ((places >= 0) & (places <= SIZE - 1)).all(0)
    layers = [map_coordinates((next_mask == layer) * 1.0, places, order=1, mode="nearest") for layer in range(3)]
    return np.stack(warped, -1), inside & (np.choose(mask, layers) > 0.999)


def test_the_background_may_shift_turn_and_grow():
    config = SpritesConfig(background_speed=1.5, background_turn=0.05, background_growth=0.03, waves=6, sharpness=3.0)
    keys = jax.random.split(jax.random.key(1), 4)
    clips, flows, masks = jax.device_get(jax.jit(jax.vmap(render, (0, None, None)), static_argnums=2)(keys, 4, config))
    errors, still = [], []
    for clip, flow, mask in zip(clips.astype(float), flows, masks, strict=True):
        for t in range(FRAMES - 1):
            warped, seen = _warp(clip[t + 1], mask[t + 1], mask[t], flow[t])
            seen &= mask[t] == 0
            errors.extend(np.abs(warped - clip[t])[seen].ravel())
            still.extend(np.abs(clip[t + 1] - clip[t])[seen].ravel())
    assert np.mean(errors) < min(3.5, np.mean(still) / 4)
    ground = flows[:, 0][masks[:, 0] == 0]
    assert ground.std(0).min() > 0.3  # not one shift for all


@pytest.mark.parametrize(
    ("name", "axis", "sign"),
    [("translate_left", 0, -1), ("translate_right", 0, 1), ("translate_up", 1, -1), ("translate_down", 1, 1)],
)
def test_flow_of_a_translation_is_its_speed(rendered, name, axis, sign):
    _, flows, masks, _ = of_classes(rendered, [name])
    motion = flows[masks[:, :-1] == 1]
    assert (sign * motion[:, axis] >= CONFIG.speed[0] - 1e-4).all()
    assert (sign * motion[:, axis] <= CONFIG.speed[1] + 1e-4).all()
    assert np.abs(motion[:, 1 - axis]).max() < 1e-4
    assert np.abs(flows[masks[:, :-1] == 0]).max() <= CONFIG.background_speed + 1e-4


def test_clockwise_is_clockwise_on_the_screen(rendered):
    for name, sign in (("rotate_clockwise", 1), ("rotate_counterclockwise", -1)):
        _, flows, masks, _ = of_classes(rendered, [name])
        u_rises_downwards = np.diff(flows[..., 0], axis=2)
        inner = (masks[:, :-1, 1:] == 1) & (masks[:, :-1, :-1] == 1)
        # On a screen (y down) what turns clockwise goes left below its centre: du/dy < 0.
        assert np.median(u_rises_downwards[inner]) * sign < -0.1


def test_nothing_but_the_sprites_depends_on_the_class():
    keys = jax.random.split(jax.random.key(5), PER_CLASS)
    first = render_class(keys, 0)
    for index in (5, 6, 10, 12, 15):
        other = render_class(keys, index)
        uncovered = (first[2] == 0) & (other[2] == 0)
        changed = (first[0] != other[0]).any(-1)[uncovered]
        assert changed.mean() < 0.05  # soft edges reach half a pixel beyond the mask
        flows = (flow[uncovered[:, :-1]] for flow in (first[1], other[1]))
        np.testing.assert_array_equal(*flows)


def test_the_key_decides(rendered):
    keys = jax.random.split(jax.random.key(3), (len(CONFIG.classes), PER_CLASS))
    again = render_class(keys[7], 7)
    for part, expected in zip(again, rendered, strict=True):
        np.testing.assert_array_equal(part, expected[7])
    assert (again[0][0] != again[0][1]).mean() > 0.5


@pytest.mark.parametrize("family", [ELEMENTARY, COMPOSED, RELATIONAL])
def test_one_frame_does_not_tell_the_label_but_motion_does(rendered, family):
    """A forest sees pixels and outlines (area, place, distance) of a random frame: chance.

    Controls, far above chance: given the first frame of every clip, the same forest sees what will
    grow or come near (not in "composed", whose every frame is silent); given all frames, motion.
    """
    clips, _, masks, labels = of_classes(rendered, family)
    rng = np.random.default_rng(0)
    order = rng.permutation(len(labels))
    clips, masks, labels = clips[order], masks[order], labels[order]
    rows, times = np.arange(len(labels)), rng.integers(FRAMES, size=len(labels))
    pixels = clips[rows, times].reshape(-1, 12, 4, 12, 4, 3).mean((2, 4)).reshape(len(clips), -1)
    outlines = np.stack([_outline(masks[:, t]) for t in range(FRAMES)], axis=1)
    motion = np.diff(outlines, axis=1).reshape(len(labels), -1)

    one_frame = np.concatenate([pixels, outlines[rows, times]], axis=-1)
    assert abs(_excess(one_frame[:, None], labels)) < 3
    assert abs(_excess(outlines, labels)) < 3
    assert (_excess(outlines[:, :1], labels) > 4) == (family != COMPOSED)
    assert _excess(motion[:, None], labels) > 8


def _excess(samples, labels):
    """How far above chance a forest is on the other half, in standard errors.

    `samples` `[N, n, features]`: n samples of each clip. The standard error counts clips only.
    """
    half, count = len(labels) // 2, samples.shape[1]
    forest = RandomForestClassifier(60, min_samples_leaf=3, random_state=0)
    forest.fit(np.concatenate(samples[:half]), np.repeat(labels[:half], count))
    right = forest.predict(np.concatenate(samples[half:])) == np.repeat(labels[half:], count)
    chance = 1 / len(set(labels))
    return (right.mean() - chance) / np.sqrt(chance * (1 - chance) / (len(labels) - half))


def _outline(mask):
    """Area and place of each sprite, and their distance: `[N, features]`."""
    line = np.arange(SIZE)
    features = []
    for sprite in (1, 2):
        seen = mask == sprite
        area = seen.sum((1, 2))
        x, y = ((seen.sum(axis) * line).sum(1) / np.maximum(area, 1) for axis in (1, 2))
        features += [area, x, y]
    distance = np.hypot(features[1] - features[4], features[2] - features[5])
    return np.stack([*features, distance], axis=-1).astype(float)


def test_rendering_needs_neither_tensorflow_nor_av():
    code = "import data_pipelines.sprites, sys; print({'tensorflow', 'av'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
