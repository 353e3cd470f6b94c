"""The baseline: one stage that moves everything; unlabelled clips teach nothing."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from hcml_jax import augment
from hcml_jax.config import ConfigError
from hcml_jax.methods import build_method
from hcml_jax.methods.recognition import classification_loss
from hcml_jax.models import TrainMode
from hcml_jax.rng import stream
from tests.methods import tiny
from tests.methods.stages import leaves, moved, run_stage


def supervised(**fields):
    config = {"name": "supervised", "backbone": tiny.BACKBONE, "stages": {"supervised": tiny.schedule()}}
    return build_method(config | fields, 3)


@pytest.mark.parametrize("blocks", [(), ("res2", "res3", "res4")])
def test_the_loss_is_the_cross_entropy_of_its_logits(blocks):
    method = supervised(motion_blocks=blocks, flip=False)
    variables, batch = tiny.init(method), tiny.batch()
    (stage,) = method.stages
    loss, outputs = jax.jit(lambda v, b: method.loss(v, b, jax.random.key(0), stage, train=True))(variables, batch)
    clips = method.normalise(augment.to_float(batch.clip[:, 0]))
    apply = functools.partial(method.network.apply, mutable=["batch_stats"])
    logits = jax.jit(lambda v, x: apply(v, x, TrainMode()))(variables, clips)[0].logits
    rows = optax.softmax_cross_entropy_with_integer_labels(logits, batch.label)
    np.testing.assert_allclose(loss, rows.mean(), rtol=1e-5)
    assert outputs.metrics["loss"] == loss
    levels = {f"level{level}" for level in range(len(blocks))}
    assert set(jax.eval_shape(method.encode, variables, batch.clip[:, 0]).features) == levels | {"backbone"}


def test_colours_change_in_training_alone():
    plain, coloured = supervised(), supervised(photometric={"jitter": 1.0, "grayscale": 0.0, "blur": 0.0})
    variables, batch = tiny.init(plain), tiny.batch()
    (stage,), key = plain.stages, jax.random.key(1)

    def loss_of(method, batch, train):
        return float(jax.jit(lambda b: method.loss(variables, b, key, stage, train=train)[0])(batch))

    assert loss_of(coloured, batch, False) == loss_of(plain, batch, False)
    drawn = augment.draw_photometric(stream(key, "photometric"), 4, coloured.photometric)
    clip = augment.change_photometry(augment.to_float(batch.clip[:, 0]), drawn, coloured.photometric)
    expected = loss_of(plain, batch._replace(clip=clip[:, None]), True)
    np.testing.assert_allclose(loss_of(coloured, batch, True), expected, rtol=1e-4)
    assert abs(loss_of(plain, batch, True) - expected) > 1e-3


def test_the_classifier_does_not_see_what_is_dropped():
    """Of the embedding, in training alone; a share of it, the rest scaled up."""
    plain, dropping = supervised(), supervised(dropout=0.5)
    variables, batch = tiny.init(plain), tiny.batch()
    (stage,), key = plain.stages, jax.random.key(0)

    def losses(method, train, seeds):
        step = jax.jit(lambda key: method.loss(variables, batch, key, stage, train=train)[0])
        return [float(step(jax.random.key(seed))) for seed in seeds]

    assert losses(dropping, False, [0]) == losses(plain, False, [0])
    drawn = losses(dropping, True, [0, 1, 0])
    assert drawn[0] == drawn[2] != drawn[1]
    assert losses(plain, True, [0])[0] not in drawn
    clips = dropping.normalise(augment.to_float(batch.clip[:, 0]))
    apply = functools.partial(dropping.network.apply, variables, clips, TrainMode(lambda path: False))
    keys = jax.random.split(key, 300)
    drawn = jax.jit(lambda: jax.lax.map(lambda key: apply(rngs={"dropout": key}).logits, keys))()
    np.testing.assert_allclose(drawn.mean(0), apply().logits, atol=0.15)


def test_a_share_of_the_frame_is_asked_for():
    (stage,) = supervised(area=(0.2, 1.0)).stages
    assert stage.reads.area == (0.2, 1.0)
    with pytest.raises(ConfigError, match="area in 0.05..1"):
        supervised(area=(0.0, 1.0))
    with pytest.raises(ConfigError, match="dropout must be in"):
        supervised(dropout=1.0)


def test_its_stage_moves_everything():
    method = supervised()
    variables = tiny.init(method)
    state, _ = run_stage(method, method.stages[0], variables)
    assert moved(variables["params"], state.variables["params"]) == set(leaves(variables["params"]))
    assert moved(variables["batch_stats"], state.variables["batch_stats"]) == set(leaves(variables["batch_stats"]))


def test_unlabelled_clips_teach_nothing():
    logits = jnp.asarray(np.random.default_rng(0).normal(size=(4, 3)), jnp.float32)
    loss, report = classification_loss(logits, jnp.array([0, -1, 2, -1]))
    rows = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.array([0, 0, 2, 0]))
    np.testing.assert_allclose(loss, (rows[0] + rows[2]) / 2, rtol=1e-6)
    right = (np.argmax(np.asarray(logits), 1) == np.array([0, -1, 2, -1]))[[0, 2]]
    np.testing.assert_allclose(report["top1"], right.mean())
    none, _ = classification_loss(logits, jnp.full(4, -1))
    assert none == 0


def test_it_needs_labels():
    with pytest.raises(ConfigError, match="needs a table with labels"):
        build_method({"name": "supervised", "stages": {"supervised": tiny.schedule()}}, num_classes=0)
