"""Flow head, predictors and classifier: shapes, what they see, shared weights."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hcml_jax.models import Classifier, FlowHead, Predictors


def test_flow_head_is_densely_connected(key):
    head = FlowHead(channels=(5, 4, 3))
    motion = jax.random.normal(key, (2, 3, 6, 6, 7))
    variables = head.init(key, motion)
    inputs = {name: v["kernel"].shape[2] for name, v in variables["params"].items()}
    assert inputs == {"conv0": 7, "conv1": 12, "conv2": 16, "flow": 19}
    assert head.apply(variables, motion).shape == (2, 3, 6, 6, 2)


class DenselyConnected(nn.Module):
    """The flow head of Flax's own convolutions."""

    dtype: jnp.dtype

    @nn.compact
    def __call__(self, motion):
        x = motion.astype(self.dtype)
        for number, channels in enumerate((5, 4, 3)):
            y = nn.Conv(channels, (3, 3), dtype=self.dtype, name=f"conv{number}")(x)
            x = jnp.concatenate([x, nn.leaky_relu(y, 0.1)], axis=-1)
        return nn.Conv(2, (3, 3), dtype=self.dtype, name="flow")(x)


@pytest.mark.parametrize(("dtype", "tolerance"), [(jnp.float32, 1e-5), (jnp.bfloat16, 3e-2)])
def test_flow_head_has_the_parameters_and_outcome_of_flax_convolutions(key, dtype, tolerance):
    """Checkpoints and shipped weights hold them by these names."""
    motion = jax.random.normal(key, (2, 3, 6, 7, 7))
    head, expected = FlowHead((5, 4, 3), dtype), DenselyConnected(dtype)
    variables = head.init(key, motion)
    jax.tree.map(np.testing.assert_array_equal, variables, expected.init(key, motion))
    variables = jax.tree.map(lambda p: p + 0.1, variables)  # biases, too
    found, wanted = head.apply(variables, motion), expected.apply(variables, motion).astype(jnp.float32)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, wanted, atol=tolerance * np.abs(wanted).max())


def test_predictors_share_their_hidden_layer(key):
    head = Predictors(steps=3)
    motion, lower = jnp.ones((2, 4, 5, 6)), jnp.ones((2, 4, 5, 3))
    variables = head.init(key, motion, lower)
    assert sorted(variables["params"]) == ["hidden", "step1", "step2", "step3"]
    assert variables["params"]["hidden"]["kernel"].shape == (9, 6)
    assert head.apply(variables, motion, lower).shape == (3, 2, 4, 5, 3)


def test_predictors_equal_a_two_layer_perceptron(key):
    head = Predictors(steps=1)
    motion, lower = jax.random.normal(key, (1, 2, 3, 6)), jax.random.normal(key, (1, 2, 3, 4))
    variables = head.init(key, motion, lower)
    p = jax.tree.map(np.asarray, variables["params"])
    x = np.concatenate([motion, lower], -1)
    hidden = np.maximum(x @ p["hidden"]["kernel"] + p["hidden"]["bias"], 0)
    expected = hidden @ p["step1"]["kernel"] + p["step1"]["bias"]
    np.testing.assert_allclose(head.apply(variables, motion, lower)[0], expected, atol=1e-5)


def test_classifier_is_float32_even_for_bfloat16(key):
    head = Classifier(5)
    x = jnp.ones((2, 8), jnp.bfloat16)
    logits = head.apply(head.init(key, x), x)
    assert logits.shape == (2, 5)
    assert logits.dtype == jnp.float32
