"""Local motion contrast against loops written from MSCL's equations 5 and 6."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from hcml_jax.contrastive import local_motion_contrast, local_motion_contrast_and_hits

B, T, C = 2, 4, 5


def features(dtype=np.float32):
    rng = np.random.default_rng(0)
    return [jnp.asarray(rng.normal(size=(B, T, C)), dtype) for _ in range(3)]


def by_loops(rgb, flow, rotated, temperature, valid=None):
    valid = np.ones((B, T), bool) if valid is None else valid

    def h(x, y):
        x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
        return np.exp(x @ y / np.linalg.norm(x) / np.linalg.norm(y) / temperature)

    losses, hits = np.empty((B, T)), np.empty((B, T), bool)
    for b in range(B):
        for i in range(T):
            others = [h(rgb[b, i], flow[b, j]) for j in range(T) if j != i and valid[b, j]]
            if rotated is not None:
                others += [h(rgb[b, i], rotated[b, j]) for j in range(T) if valid[b, j]]
            right = h(rgb[b, i], flow[b, i])
            losses[b, i] = -np.log(right / (right + sum(others)))
            hits[b, i] = right > max(others)
    return losses, hits


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("with_rotation", [True, False])
def test_equals_the_equations(dtype, with_rotation):
    rgb, flow, rotated = features(dtype)
    rotated = rotated if with_rotation else None
    found = jax.jit(local_motion_contrast_and_hits, static_argnames="temperature")(rgb, flow, rotated, temperature=0.2)
    losses, hits = by_loops(rgb, flow, rotated, 0.2)
    assert found.losses.dtype == jnp.float32
    np.testing.assert_allclose(found.losses, losses, rtol=1e-4)
    np.testing.assert_array_equal(found.hits, hits)
    assert 0 < hits.sum() < hits.size


@pytest.mark.parametrize("with_rotation", [True, False])
def test_times_that_are_not_valid_are_no_negatives(with_rotation):
    rgb, flow, rotated = features()
    rotated = rotated if with_rotation else None
    valid = np.array([[True, False, True, True], [True, True, True, False]])
    found = local_motion_contrast_and_hits(rgb, flow, rotated, valid, temperature=0.2)
    losses, hits = by_loops(rgb, flow, rotated, 0.2, valid)
    np.testing.assert_allclose(found.losses[valid], losses[valid], rtol=1e-4)
    np.testing.assert_array_equal(found.hits[valid], hits[valid])
    with pytest.raises(ValueError, match="valid: clips and times of rgb"):
        local_motion_contrast_and_hits(rgb, flow, rotated, valid[:, 1:], temperature=0.2)


def test_the_loss_alone_and_its_gradients():
    arrays = features()
    np.testing.assert_array_equal(
        local_motion_contrast(*arrays, temperature=0.2), local_motion_contrast_and_hits(*arrays, temperature=0.2).losses
    )
    check_grads(lambda *a: local_motion_contrast(*a, temperature=0.5).sum(), arrays, order=1, modes=["rev"], rtol=1e-2)


def test_times_and_rotations_that_look_alike_cost_the_logarithm_of_their_number():
    alike = jnp.ones((B, T, C))
    np.testing.assert_allclose(local_motion_contrast(alike, alike, alike, temperature=0.07), np.log(2 * T), rtol=1e-6)
    assert not local_motion_contrast_and_hits(alike, alike, alike, temperature=0.07).hits.any()


def test_flow_of_another_length_is_refused():
    rgb, flow, rotated = features()
    with pytest.raises(ValueError, match=r"flow: the shape of rgb: expected \(2, 4, 5\), found \(2, 3, 5\)"):
        local_motion_contrast(rgb, flow[:, 1:], rotated, temperature=0.07)
