"""RAFT's parts against loops; the whole is held to torchvision's in tests/parity."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hcml_jax.models.raft import RAFT, SIZES, enlarge, look_up, similarities
from hcml_jax.weights.import_weights import convert
from hcml_jax.weights.published import published_layouts
from hcml_jax.weights.torch_files import WeightsError

RNG = np.random.default_rng(0)


def interpolated(level, x, y):
    """`level` [H, W] at a place between its cells; 0 outside."""
    total, left, top = 0.0, int(np.floor(x)), int(np.floor(y))
    for column in (left, left + 1):
        for row in (top, top + 1):
            if 0 <= column < level.shape[1] and 0 <= row < level.shape[0]:
                total += level[row, column] * (1 - abs(x - column)) * (1 - abs(y - row))
    return total


def test_similarities_are_looked_up_as_by_loops():
    here, there = (RNG.normal(size=(2, 5, 6, 3)).astype(np.float32) for _ in range(2))
    here, there = (np.repeat(np.repeat(x, 4, 1), 4, 2)[:, :17, :18] for x in (here, there))  # 8 cells at least
    places = RNG.uniform(-3, 20, (2, 17, 18, 2)).astype(np.float32)
    found = jax.jit(look_up, static_argnums=2)(similarities(here, there), places, 1)
    assert found.shape == (2, 17, 18, 4 * 9)
    for n, h, w in ((0, 0, 0), (1, 3, 7), (0, 16, 17), (1, 9, 2)):
        level = (there[n] @ here[n, h, w]) / np.sqrt(3)
        expected = []
        for number in range(4):
            x, y = places[n, h, w] / 2**number
            expected += [interpolated(level, x + dx, y + dy) for dx in (-1, 0, 1) for dy in (-1, 0, 1)]
            rows, columns = (size // 2 for size in level.shape)
            level = level[: 2 * rows, : 2 * columns].reshape(rows, 2, columns, 2).mean((1, 3))
        np.testing.assert_allclose(found[n, h, w], expected, atol=1e-4)


def test_each_pixel_is_a_weighted_mean_of_nine_cells():
    flow = RNG.normal(size=(1, 3, 4, 2)).astype(np.float32)
    logits = RNG.normal(size=(1, 3, 4, 9 * 64)).astype(np.float32)
    found = enlarge(jnp.asarray(flow), jnp.asarray(logits))
    padded = np.pad(8 * flow[0], [(1, 1), (1, 1), (0, 0)])
    for y, x in ((0, 0), (13, 21), (23, 31)):
        weights = np.exp(logits[0, y // 8, x // 8].reshape(9, 8, 8)[:, y % 8, x % 8])
        around = padded[y // 8 : y // 8 + 3, x // 8 : x // 8 + 3].reshape(9, 2)
        np.testing.assert_allclose(found[0, y, x], weights @ around / weights.sum(), rtol=1e-4)


@pytest.mark.parametrize("size", SIZES)
def test_flow_has_the_size_of_the_frames(size):
    clip = jax.ShapeDtypeStruct((2, 3, 130, 140, 3), jnp.float32)
    flow, _ = jax.eval_shape(RAFT(size, updates=2).init_with_output, jax.random.key(0), clip)
    assert flow.shape == (2, 2, 130, 140, 2) and flow.dtype == jnp.float32


@pytest.mark.parametrize("shape", [(1, 1, 128, 128, 3), (1, 2, 120, 160, 3), (1, 2, 160, 112, 3)])
def test_clips_that_are_too_small_are_refused(shape):
    with pytest.raises(ValueError, match="RAFT needs 2 frames or more of 128 x 128 pixels or more, found"):
        jax.eval_shape(RAFT().init, jax.random.key(0), jax.ShapeDtypeStruct(shape, jnp.float32))


def test_weights_have_torchvisions_names():
    (layout,) = published_layouts("raft_large")
    names = {
        "feature_encoder.convnormrelu.0.weight": "feature_encoder/convnormrelu/conv/kernel",
        "context_encoder.layer2.0.downsample.1.running_var": "context_encoder/layer2_0/downsample/norm/var",
        "context_encoder.layer3.1.convnormrelu2.1.weight": "context_encoder/layer3_1/convnormrelu2/norm/scale",
        "feature_encoder.conv.bias": "feature_encoder/conv/bias",
        "update_block.motion_encoder.convcorr2.0.weight": "update_block/convcorr2/kernel",
        "update_block.motion_encoder.conv.0.bias": "update_block/motion/bias",
        "update_block.recurrent_block.convgru1.convz.weight": "update_block/convgru1/convz/kernel",
        "update_block.flow_head.conv2.weight": "update_block/head2/kernel",
        "mask_predictor.convrelu.0.weight": "mask_predictor/convrelu/kernel",
        "mask_predictor.conv.weight": "mask_predictor/conv/kernel",
    }
    assert {name: layout.name(tuple(path.split("/"))) for name, path in names.items()} == {name: name for name in names}
    with pytest.raises(WeightsError, match="none of the tensors has a name of raft_small's"):
        convert({"fc.weight": np.zeros((3, 3))}, "raft_small")
