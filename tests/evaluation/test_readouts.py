"""Read-outs against means by hand; their names."""

import jax.numpy as jnp
import numpy as np
import pytest

from hcml_jax.config import ConfigError
from hcml_jax.evaluation.readouts import parse_readout, pool


@pytest.mark.parametrize(
    ("name", "grid"), [("1x1", (1, 1, 1)), ("Tx1x1", (6, 1, 1)), ("2x2", (1, 2, 2)), ("3x2x4", (3, 2, 4))]
)
@pytest.mark.parametrize(("dtype", "rtol"), [(np.float32, 1e-5), (jnp.bfloat16, 1e-2)])
def test_cells_hold_their_means(name, grid, dtype, rtol):
    features = np.random.default_rng(0).normal(size=(2, 6, 4, 8, 3)) + 5
    found = pool(jnp.asarray(features, dtype), parse_readout(name))
    parts = [np.split(np.arange(n), cells) for n, cells in zip(features.shape[1:4], grid, strict=True)]
    expected = [
        features[np.ix_(range(2), *cell, range(3))].mean((1, 2, 3))
        for cell in ((t, y, x) for t in parts[0] for y in parts[1] for x in parts[2])
    ]
    np.testing.assert_allclose(found, np.concatenate(expected, axis=1), rtol=rtol)


def test_a_grid_is_no_finer_than_the_map():
    features = np.random.default_rng(0).normal(size=(2, 3, 2, 5, 4)).astype(np.float32)
    expected = features.mean(1)[:, :, [0, 1, 2, 3, 4]].reshape(2, -1)
    np.testing.assert_allclose(pool(features, parse_readout("1x9x9")), expected, rtol=1e-5)


@pytest.mark.parametrize("name", ["mean", "3", "3x", "0x3", "Tx3", "3xTx3", "1x2x3x4", "3 x 3", ""])
def test_other_names_are_refused(name):
    with pytest.raises(ConfigError, match="no read-out is called"):
        parse_readout(name)
