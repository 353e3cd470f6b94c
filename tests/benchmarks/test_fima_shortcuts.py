"""What the questions change in a batch, held to the places that FIMA itself would call the same."""

import importlib
import pathlib

import jax.numpy as jnp
import numpy as np
import pytest

from hcml_jax.batch import Reads, blank_batch
from hcml_jax.contrastive import pixel_positives

CELL, GRID = 8, (3, 3)


@pytest.fixture
def shortcuts(monkeypatch):
    monkeypatch.syspath_prepend(str(pathlib.Path(__file__).parents[2] / "benchmarks"))
    return importlib.import_module("fima_shortcuts")


@pytest.fixture
def batch():
    side, frames = CELL * GRID[0], 4
    batch = blank_batch(2, (frames, side, side, 3), Reads(clips=2))
    clip = np.random.default_rng(0).integers(0, 255, batch.clip.shape, np.uint8)
    box = np.tile(np.float32([10, 20, 2 * side, 2 * side]), (2, 2, 1))  # half as many pixels as the video
    return batch._replace(clip=clip, box=box)


def test_a_moved_clip_shows_a_place_one_further_and_its_box_says_so(shortcuts, batch):
    same, still = shortcuts.moved(batch, CELL), shortcuts.at_the_same_position(batch, CELL)
    np.testing.assert_array_equal(same.clip[:, 1, :, :, CELL:], batch.clip[:, 1, :, :, :-CELL])
    np.testing.assert_array_equal(same.clip[:, 0], batch.clip[:, 0])
    np.testing.assert_array_equal(still.clip, same.clip)
    place = np.arange(9)
    further = (place[:, None] + 1 == place) & (place[:, None] % 3 < 2)
    for changed, expected in ((same, further), (still, np.eye(9, dtype=bool))):
        boxes = (jnp.asarray(changed.box[:, view]) for view in (0, 1))
        one, other = boxes
        flip = jnp.zeros(2, bool)
        np.testing.assert_array_equal(pixel_positives(one, flip, other, flip, GRID)[0], expected)


def test_a_clip_of_another_video_is_said_to_be_of_the_same(shortcuts, batch):
    changed = shortcuts.of_another_video(batch, CELL)
    np.testing.assert_array_equal(changed.clip[0, 1], batch.clip[1, 1])
    np.testing.assert_array_equal(changed.box[:, 1], batch.box[:, 0])


def test_second_halves_are_the_first_backwards_or_moved(shortcuts, batch):
    first = batch.clip[:, :, :2]
    for changed in (shortcuts.backwards(batch, CELL), shortcuts.elsewhere(batch, CELL)):
        np.testing.assert_array_equal(changed.clip[:, :, :2], first)
    np.testing.assert_array_equal(shortcuts.backwards(batch, CELL).clip[:, :, 2], first[:, :, 1])
    np.testing.assert_array_equal(shortcuts.elsewhere(batch, CELL).clip[..., CELL:, :][:, :, 2:], first[..., :-CELL, :])
