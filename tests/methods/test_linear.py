"""Linear training: classifiers side by side are those trained alone; the network stays; scikit-learn's accuracy."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn.linear_model import LogisticRegression

from hcml_jax.config import ConfigError
from hcml_jax.methods import build_method
from hcml_jax.methods.linear import side_by_side
from hcml_jax.models import SideBySide
from hcml_jax.training.optimizer import make_optimizer
from tests.methods import tiny
from tests.methods.stages import moved, run_stage


def linear(rates=(1.0,), learning_rate=0.5, **fields):
    schedule = tiny.schedule(4, learning_rate=learning_rate, weight_decay=0.1)
    config = {"name": "linear", "backbone": tiny.BACKBONE, "stages": {"linear": schedule}, "rates": rates}
    return build_method(config | fields, 3)


@pytest.mark.parametrize("fields", [{}, {"normalise": True, "motion_blocks": ("res2", "res3"), "feature": "level1"}])
def test_side_by_side_is_as_alone(fields):
    """Momentum and weight decay included: each moves as it would at its own rate."""
    rates = (0.3, 1.0, 4.0)
    together = linear(rates, **fields)
    variables = tiny.init(together)
    state, metrics = run_stage(together, together.stages[0], variables)
    for number, rate in enumerate(rates):
        alone = linear(learning_rate=0.5 * rate, **fields)
        own = {**variables, "params": {**variables["params"], "classifiers": tiny.init(alone)["params"]["classifiers"]}}
        expected, alone_metrics = run_stage(alone, alone.stages[0], own)
        for name, array in expected.variables["params"]["classifiers"].items():
            found = state.variables["params"]["classifiers"][name][number]
            np.testing.assert_allclose(found, array[0], rtol=1e-4, atol=1e-6)
        name = f"classification/rate_{rate:g}/loss"
        np.testing.assert_allclose(metrics[name], alone_metrics["classification/rate_1/loss"], rtol=1e-5)


def test_the_network_stays_as_it_was():
    method = linear()
    variables = tiny.init(method)
    state, _ = run_stage(method, method.stages[0], variables)
    assert {path.split("/")[0] for path in moved(variables["params"], state.variables["params"])} == {"classifiers"}
    assert not moved(variables["batch_stats"], state.variables["batch_stats"])


def test_class_scores_are_of_each_classifier():
    method = linear((0.1, 1.0))
    encoded = jax.eval_shape(method.encode, tiny.init(method), tiny.batch().clip[:, 0])
    assert encoded.logits.shape == (4, 2, 3)
    assert method.classifiers == ("rate 0.1", "rate 1")


def test_it_comes_as_near_as_scikit_learn():
    """On the same features, within a point of accuracy; the objective is the same: C is 1 / (weight decay * clips)."""
    rng, decay = np.random.default_rng(0), 1e-3
    centres = rng.normal(size=(10, 20))
    labels = np.arange(1600) % 10
    features = (centres[labels] + 1.6 * rng.normal(size=(1600, 20))).astype(np.float32)
    train, test = slice(800), slice(800, None)
    reference = LogisticRegression(C=1 / (decay * 800), max_iter=1000).fit(features[train], labels[train])
    module, rates = SideBySide(10, 2), (0.25, 1.0)
    params = module.init(jax.random.key(0), features[:1])["params"]
    config = {"name": "linear", "stages": {"linear": {"steps": 600, "learning_rate": 1.0, "per_clips": 0}}}
    optimizer = make_optimizer(build_method(config, 10).stages[0].schedule, 800, 800)

    def loss(params):
        logits, penalty = module.apply({"params": params}, features[train])
        return side_by_side(logits, jnp.asarray(labels[train]), penalty, decay, rates)[0]

    @jax.jit
    def step(carry, _):
        params, state = carry
        updates, state = optimizer.update(jax.grad(loss)(params), state, params)
        return (optax.apply_updates(params, updates), state), None

    (params, _), _ = jax.lax.scan(step, (params, optimizer.init(params)), length=600)
    logits, _ = module.apply({"params": params}, features[test])
    accuracy = reference.score(features[test], labels[test])
    assert 0.5 < accuracy < 0.95
    for number in range(2):
        found = (np.asarray(logits)[:, number].argmax(1) == labels[test]).mean()
        assert found == pytest.approx(accuracy, abs=0.01)


def test_unlabelled_clips_teach_nothing():
    logits = jnp.asarray(np.random.default_rng(0).normal(size=(4, 2, 3)), jnp.float32)
    penalty = jnp.zeros(2)
    whole, _ = side_by_side(logits, jnp.array([0, -1, 2, -1]), penalty, 0.0, (1.0, 2.0))
    part, _ = side_by_side(logits[::2], jnp.array([0, 2]), penalty, 0.0, (1.0, 2.0))
    np.testing.assert_allclose(whole, part, rtol=1e-6)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"feature": "level0"}, "no feature is called 'level0'. Did you mean|Valid: backbone"),
        ({"rates": ()}, "rates must be one or more"),
        ({"rates": (1.0, 1.0)}, "each above 0 and once"),
        ({"rates": (0.0,)}, "each above 0"),
        ({"motion_blocks": ("res9",)}, "no stage is called 'res9'"),
        ({"stages": {"linear": tiny.schedule(optimizer="adamw")}}, "need optimizer 'sgd'"),
        ({"stages": {"supervised": tiny.schedule()}}, "exactly 'linear'"),
    ],
)
def test_what_does_not_fit_is_named(fields, message):
    with pytest.raises(ConfigError, match=message):
        linear(**fields)
