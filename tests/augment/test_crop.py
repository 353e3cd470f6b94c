"""Crops, held to PIL's."""

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from hcml_jax.augment import crop, draw_crop

SIZE = (10, 14)


def test_a_part_is_enlarged_as_pil_does():
    clip = np.random.default_rng(0).random((2, 2, *SIZE, 3), np.float32)
    box = np.float32([[0.2, 0.35, 0.5, 0.4], [0.0, 0.1, 1.0, 0.9]])
    found = jax.jit(crop)(jnp.asarray(clip), jnp.asarray(box))
    for b, (top, left, height, width) in enumerate(box):
        part = left * SIZE[1], top * SIZE[0], (left + width) * SIZE[1], (top + height) * SIZE[0]
        for t, c in np.ndindex(2, 3):
            image = Image.fromarray(clip[b, t, :, :, c])
            expected = image.resize(SIZE[::-1], Image.Resampling.BILINEAR, box=part)
            np.testing.assert_allclose(found[b, t, :, :, c], np.asarray(expected), atol=1e-5)


def test_the_whole_is_left_as_it_is(key):
    clip = jax.random.uniform(key, (1, 1, *SIZE, 3))
    np.testing.assert_allclose(crop(clip, jnp.array([[0.0, 0.0, 1.0, 1.0]])), clip, atol=1e-6)


def test_boxes_lie_inside_and_have_the_area_asked_for(key):
    top, left, height, width = draw_crop(key, 4000, (0.3, 0.6)).T
    assert min(top.min(), left.min()) >= 0 and max((top + height).max(), (left + width).max()) <= 1 + 1e-6
    area, aspect = height * width, width / height
    assert 0.3 <= area.min() < 0.31 and 0.59 < area.max() <= 0.6 + 1e-6
    np.testing.assert_allclose(area.mean(), 0.45, atol=0.01)
    assert 0.75 - 1e-5 <= aspect.min() < 0.76 and 1.32 < aspect.max() <= 4 / 3 + 1e-5
    np.testing.assert_allclose(np.log(aspect).mean(), 0, atol=0.01)
    middle = top + height / 2
    np.testing.assert_allclose(middle.mean(), 0.5, atol=0.01)


def test_what_sticks_out_is_cut_off(key):
    assert draw_crop(key, 1000, (1.0, 1.0))[:, 2:].max() <= 1
