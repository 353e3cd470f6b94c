"""Grad-CAM++ against finite differences and a loop; on every family of backbones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hcml_jax.evaluation.activation import _forward, activation, feature_gradient, grad_cam
from hcml_jax.methods import build_method
from tests.methods import tiny


@pytest.fixture(scope="module")
def network():
    method = tiny.hcml()
    variables = tiny.init(method)
    return method, variables, tiny.batch(2).clip[:, 0], np.array([2, 0])


def test_the_gradient_is_that_of_finite_differences(network):
    method, variables, clips, classes = network
    _, features, gradient = feature_gradient(*network)
    scores = jax.jit(lambda change: _forward(method, variables, clips, change)[0])
    rng, step = np.random.default_rng(0), 1.0  # scores are linear in the features
    for _ in range(10):
        place = tuple(int(rng.integers(n)) for n in features.shape)
        change = np.zeros(features.shape, np.float32)
        change[place] = step
        difference = (scores(change) - scores(-change)) / (2 * step)
        np.testing.assert_allclose(difference[place[0], classes[place[0]]], gradient[place], rtol=1e-2, atol=1e-6)


def test_maps_are_those_of_a_plain_loop(network):
    _, features, gradient = (np.asarray(x, np.float64) for x in feature_gradient(*network))
    expected = np.zeros(features.shape[:4])
    for clip in range(len(features)):
        for channel in range(features.shape[-1]):
            a, g = features[clip, ..., channel], gradient[clip, ..., channel]
            alpha = g**2 / (2 * g**2 + a.sum() * g**3)
            expected[clip] += (alpha * np.maximum(g, 0)).sum() * a
    _, found = grad_cam(*network)
    np.testing.assert_allclose(found, np.maximum(expected, 0), rtol=1e-3, atol=1e-5)
    assert found.max() > 0


def test_the_class_is_that_of_the_highest_score(network):
    method, variables, clips, _ = network
    predicted = np.asarray(method.encode(variables, clips).logits).argmax(1)
    classes, found = grad_cam(method, variables, clips)
    np.testing.assert_array_equal(classes, predicted)
    np.testing.assert_allclose(found, grad_cam(method, variables, clips, predicted)[1], rtol=1e-5)


def test_activation_needs_no_class(network):
    method, variables, clips, _ = network
    _, features, _ = feature_gradient(*network)
    np.testing.assert_allclose(activation(method, variables, clips), np.linalg.norm(features, axis=-1), rtol=1e-4)


@pytest.mark.parametrize("name", ["r2plus1d_18", "s3d", "i3d", "slowfast_r50_8x8"])
def test_every_family_has_maps(name):
    config = {"name": "supervised", "backbone": {"name": name}, "stages": {"supervised": tiny.schedule()}}
    method = build_method(config, 3)
    clips = jax.ShapeDtypeStruct((2, 32, 64, 64, 3), jnp.uint8)
    variables = jax.eval_shape(method.init, jax.random.key(0), tiny.batch(2, clip_shape=(32, 64, 64, 3)))
    classes, found = jax.eval_shape(lambda v, c: grad_cam(method, v, c), variables, clips)
    assert classes.shape == (2,)
    assert found.ndim == 4 and len(found) == 2
