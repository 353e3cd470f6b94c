"""The temporal pyramid: grids, times, and what it adds up."""

import jax.numpy as jnp
import numpy as np
import pytest

from hcml_jax.models import TemporalPyramid
from hcml_jax.models.pyramid import repeat_in_time


def features(*shapes):
    rng = np.random.default_rng(0)
    return [jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes]


GRIDS = (2, 4, 8, 8, 3), (2, 2, 4, 4, 5), (2, 1, 2, 2, 6)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_the_outcome_stands_at_the_first_ones_times_and_the_last_ones_places(key, dtype):
    pyramid = TemporalPyramid(7, dtype)
    merged, variables = pyramid.init_with_output(key, features(*GRIDS), False)
    assert merged.shape == (2, 4, 2, 2, 7) and merged.dtype == dtype
    downs = sorted(name for name in variables["params"] if "down" in name)
    assert downs == ["level0_down0", "level0_down1", "level1_down0"]


def test_odd_sides_are_halved_as_backbones_halve_them(key):
    grids = (1, 4, 15, 13, 3), (1, 4, 8, 7, 3), (1, 2, 4, 4, 3)
    merged, _ = TemporalPyramid(5).init_with_output(key, features(*grids), False)
    assert merged.shape == (1, 4, 4, 4, 5)


def test_levels_are_added_from_the_last_one_down(key):
    """On one grid there are no convolutions but of 1x1x1: sums of products with their kernels."""
    grids = (2, 4, 2, 2, 3), (2, 4, 2, 2, 5), (2, 1, 2, 2, 6)
    given, pyramid = features(*grids), TemporalPyramid(7)
    merged, variables = pyramid.init_with_output(key, given, False)
    expected = 0.0
    for number, x in enumerate(given):
        kernel = np.asarray(variables["params"][f"level{number}"]["conv"]["kernel"])[0, 0, 0]
        at_times = np.repeat(np.asarray(x), 4 // x.shape[1], axis=1)
        expected = expected + at_times @ kernel / np.sqrt(1 + 1e-5)
    np.testing.assert_allclose(merged, expected, rtol=1e-4, atol=1e-5)


def test_times_are_repeated_in_order():
    assert repeat_in_time(jnp.arange(3)[None], 7)[0].tolist() == [0, 0, 0, 1, 1, 2, 2]


def test_stages_that_do_not_get_coarser_are_refused(key):
    with pytest.raises(ValueError, match="coarser from stage to stage"):
        TemporalPyramid(7).init(key, features(*GRIDS[::-1]), False)


def test_places_that_a_backbone_drops_are_averaged_away(key):
    """S3D at 112 pixels: 14, 7 and 3 cells."""
    grids = (1, 4, 14, 14, 3), (1, 2, 7, 7, 5), (1, 1, 3, 3, 6)
    merged, variables = TemporalPyramid(7).init_with_output(key, features(*grids), False)
    assert merged.shape == (1, 4, 3, 3, 7)
    assert sum("down" in name for name in variables["params"]) == 3
