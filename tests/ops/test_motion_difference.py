import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from hcml_jax.ops import flow_to_image, foreground_weights, motion_difference


def random_flow(shape=(4, 8, 12, 2)):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def boundaries_by_hand(flow, scale):
    """Of one map [H, W, 2]: scipy's Sobel, means of blocks."""
    squared = sum(ndimage.sobel(flow[..., c].astype(float), axis) ** 2 for c in range(2) for axis in range(2))
    height, width = squared.shape
    coarse = np.zeros_like(squared)
    for y in range(0, height, scale):
        for x in range(0, width, scale):
            block = np.s_[y : y + scale, x : x + scale]
            coarse[block] = np.sqrt(squared)[block].mean()
    return coarse


def weights_by_hand(flow, scale):
    """Their softmax."""
    coarse = boundaries_by_hand(flow, scale)
    exponentials = np.exp(coarse - coarse.max())
    return exponentials / exponentials.sum()


@pytest.mark.parametrize("scale", [1, 2, 4])
def test_weights_are_the_softmax_of_coarse_sobel_magnitudes(scale):
    flow = random_flow()
    found = jax.jit(foreground_weights, static_argnames="scale")(flow, scale=scale)
    np.testing.assert_allclose(found, [weights_by_hand(one, scale) for one in flow], rtol=1e-4, atol=1e-9)


def test_weights_may_be_in_proportion_to_the_greatest():
    flow = random_flow()
    found = foreground_weights(flow, scale=4, weighting="maximum")
    expected = [boundaries_by_hand(one, 4) / boundaries_by_hand(one, 4).max() for one in flow]
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    still = foreground_weights(np.zeros((2, 8, 8, 2), np.float32), scale=4, weighting="maximum")
    np.testing.assert_array_equal(still, 0)


def test_difference_without_weights_is_that_of_colours():
    flow = random_flow()
    images = np.asarray(flow_to_image(flow))
    expected = np.sqrt(((images[1:] - images[:-1]) ** 2).sum(-1)).sum((1, 2))
    np.testing.assert_allclose(motion_difference(flow, scale=4, weighting="none"), expected, rtol=1e-5)


def test_cells_that_do_not_divide_the_map_cover_it():
    weights = foreground_weights(random_flow((7, 10, 2)), scale=4)
    assert weights.shape == (7, 10)
    assert float(weights.sum()) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_difference_is_that_of_weighted_colours(dtype):
    flow = jnp.asarray(random_flow(), dtype)
    weighted = [np.asarray(flow_to_image(one)) * weights_by_hand(np.asarray(one, float), 4)[..., None] for one in flow]
    expected = []
    for now, then in itertools.pairwise(weighted):
        total = 0.0
        for y, x in np.ndindex(8, 12):
            total += np.sqrt(((now[y, x] - then[y, x]) ** 2).sum())
        expected.append(total)
    found = motion_difference(flow, scale=4)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_a_steady_motion_has_no_difference_and_a_change_where_it_moves_counts_most():
    flow = np.zeros((3, 8, 8, 2), np.float32)
    flow[:, :4, :4] = (2, 1)
    np.testing.assert_array_equal(motion_difference(flow, scale=4), 0)
    near, far = flow.copy(), flow.copy()
    near[1, 1:3, 1:3] = (2, -1)
    far[1, 5:7, 5:7] = (0.1, -0.1)
    assert motion_difference(near, scale=4)[0] > motion_difference(far, scale=4)[0] > 0


def test_wrong_input_is_refused():
    with pytest.raises(ValueError, match=r"flow: expected shape \[T, H, W, 2\]"):
        motion_difference(random_flow((8, 8, 2)), scale=4)
    with pytest.raises(ValueError, match="two maps or more, found 1"):
        motion_difference(random_flow((1, 8, 8, 2)), scale=4)
    with pytest.raises(ValueError, match="scale: expected 1 or more"):
        foreground_weights(random_flow(), scale=0)
    with pytest.raises(ValueError, match="weighting: expected one of softmax, maximum, none, found 'mean'"):
        motion_difference(random_flow(), scale=4, weighting="mean")
    with pytest.raises(ValueError, match="weighting: expected one of softmax, maximum, found 'none'"):
        foreground_weights(random_flow(), scale=4, weighting="none")
    with pytest.raises(ValueError, match="scale: expected 1 or more, found 0"):
        motion_difference(random_flow(), scale=0, weighting="none")
