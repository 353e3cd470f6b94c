import numpy as np
import pytest

from hcml_jax.ops import periodic_shuffle


@pytest.mark.parametrize("scale", [1, 2, 4])
def test_channels_become_pixels_in_the_order_of_eq_5(scale):
    channels = 3
    x = np.random.default_rng(0).random((2, 3, 5, scale**2 * channels), np.float32)
    found = np.asarray(periodic_shuffle(x, scale))
    assert found.shape == (2, 3 * scale, 5 * scale, channels)
    for y, column, c in np.ndindex(found.shape[1:]):
        of = channels * scale * (y % scale) + channels * (column % scale) + c
        np.testing.assert_array_equal(found[:, y, column, c], x[:, y // scale, column // scale, of])


def test_a_scale_that_does_not_divide_is_refused():
    with pytest.raises(ValueError, match="scale: 10 channels do not divide into 2 x 2 pixels"):
        periodic_shuffle(np.zeros((2, 2, 10), np.float32), 2)
