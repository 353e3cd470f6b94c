"""What every method promises: validation draws nothing and moves nothing, streams are apart, breaks are left out."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hcml_jax import preflight, rng
from hcml_jax.config import ConfigError
from hcml_jax.methods import METHODS, build_method, config_class, method_class
from hcml_jax.methods.base import Term, weigh
from hcml_jax.methods.hcml import HCML
from tests.methods import tiny


def loss(method, stage, train):
    return jax.jit(functools.partial(method.loss, stage=stage, train=train))


def test_validation_draws_nothing_that_training_draws():
    """Flips, and the dropout of C3D."""
    backbone, stages = {"name": "c3d"}, {"supervised": tiny.schedule()}
    config = {"name": "supervised", "backbone": backbone, "stages": stages}
    batch, key = tiny.batch(2, clip_shape=(16, 112, 112, 3)), jax.random.key(0)
    drawn = {}
    for flip in (True, False):
        method = build_method(config | {"flip": flip}, 3)
        variables = jax.eval_shape(method.init, key, batch)
        for train in (True, False):
            step = loss(method, method.stages[0], train)
            drawn[flip, train] = str(jax.make_jaxpr(step)(variables, batch, key)).count("random_bits")
    assert drawn[False, False] == drawn[True, False] == 0 < drawn[False, True] < drawn[True, True]


def test_training_flips_and_only_where_asked():
    batch = tiny.batch(8)
    mirrored = batch._replace(clip=batch.clip[:, :, :, :, ::-1])
    for flip in (True, False):
        method = tiny.hcml(levels=("reconstruction",), flip=flip)
        step = loss(method, method.stages[0], train=True)
        variables = tiny.init(method)
        first, second = (float(step(variables, b, jax.random.key(3))[0]) for b in (batch, mirrored))
        keys = [float(step(variables, batch, jax.random.key(k))[0]) for k in (3, 4, 5)]
        assert (len(set(keys)) > 1) == flip
        assert first != second


def test_statistics_stay_in_validation_and_move_in_training():
    method = tiny.hcml(levels=("reconstruction",))
    variables, stage = tiny.init(method), method.stages[0]
    for train in (True, False):
        _, outputs = loss(method, stage, train)(variables, tiny.batch(), jax.random.key(0))
        same = jax.tree.map(np.array_equal, outputs.collections["batch_stats"], variables["batch_stats"])
        assert all(jax.tree.leaves(same)) != train


def test_streams_are_apart():
    key = jax.random.key(0)
    found = [rng.stream(key, name) for name in ("flip", "dropout", "positions")]
    found += [key, rng.step_key(0, "flip", 0), rng.step_key(0, "flip", 1), rng.step_key(1, "flip", 0)]
    data = {tuple(np.asarray(jax.random.key_data(k)).tolist()) for k in found}
    assert len(data) == len(found)


def quadratic(**fields):
    """A method whose photometric term is a mean of squares, with no flow."""
    method = tiny.hcml(charbonnier_alpha=1.0, charbonnier_epsilon=0.0, **fields)
    variables = tiny.init(method)
    head = variables["params"]["heads"]["level0"]["flow"]
    head["kernel"] = jnp.zeros_like(head["kernel"])
    return method, variables, head


def test_pairs_across_a_break_leave_the_photometric_loss():
    method, variables, _ = quadratic(levels=("reconstruction",))
    batch = tiny.batch()
    batch.consecutive[1, 0, 3] = batch.consecutive[2, 0, 5] = False
    _, outputs = loss(method, method.stages[0], True)(variables, batch, jax.random.key(0))
    clip = batch.clip[:, 0].astype(np.float64) / 255
    squares = np.square(clip[:, 1:] - clip[:, :-1]).mean((2, 3, 4))
    expected = (squares * batch.consecutive[:, 0]).mean()
    name = "reconstruction/level0"
    np.testing.assert_allclose(outputs.metrics[f"{name}/photometric"], expected, rtol=1e-5)
    assert outputs.metrics[f"{name}/valid"] == 1
    batch.consecutive[:] = False  # nothing is left to be right about
    _, outputs = loss(method, method.stages[0], True)(variables, batch, jax.random.key(0))
    assert outputs.metrics[f"{name}/valid"] == 0


def test_flow_that_leads_out_of_the_frame_is_told_by_the_valid():
    method, variables, head = quadratic(levels=("reconstruction",))
    head["bias"] = jnp.array([4.0, 0.0])  # cells of the 8 x 8 grid: half the frame
    step = loss(method, method.stages[0], True)
    share = "reconstruction/level0/valid"
    assert step(variables, tiny.batch(), jax.random.key(0))[1].metrics[share] == 0.5
    head["bias"] = jnp.array([99.0, 0.0])
    _, outputs = step(variables, tiny.batch(), jax.random.key(0))
    assert outputs.metrics[share] == outputs.metrics["reconstruction/level0/photometric"] == 0
    assert method.stages[0].floors == {share: 0.5}


def test_predictions_across_a_break_leave_the_contrast():
    """Whatever the frames before a break hold, the predictions and candidates that are left give the same loss."""
    method = tiny.hcml(positions=64)
    variables, stage = tiny.init(method), method.stages[1]
    step = loss(method, stage, train=False)  # with running statistics clips do not meet

    def contrast(batch):
        # Waited for: the step may read a batch's own memory, and it is written to below.
        return float(step(variables, batch, jax.random.key(0))[1].metrics["contrastive/level1"])

    whole, broken, noise = tiny.batch(2), tiny.batch(2), tiny.batch(2, seed=5)
    broken.consecutive[1] = noise.consecutive[1] = False  # of the second clip only the last target is left
    expected = contrast(broken)
    assert contrast(whole) != expected
    noise.clip[0] = broken.clip[0]
    noise.clip[1, 0, -1:] = broken.clip[1, 0, -1:]
    assert contrast(noise) != expected
    # The last target of level 1 pools frames 6 and 7 of level 0, of which frame 6 looks on to frame 7.
    noise.clip[1, 0, -2:] = broken.clip[1, 0, -2:]
    np.testing.assert_allclose(contrast(noise), expected, rtol=1e-5)


def test_terms_are_weighed_and_reported_by_name():
    terms = {"a": Term(lambda x: (x, {"twice": 2 * x}), weight=3.0), "b/c": Term(lambda x: (x + 1, {}))}
    total, metrics = weigh(terms, jnp.float32(2.0))
    assert total == 9 and metrics == {"loss": 9, "a": 2, "a/twice": 4, "b/c": 3}


@pytest.mark.parametrize("name", METHODS)
def test_methods_are_frozen_dataclasses_of_their_own_config(name):
    method = method_class(name)
    assert dataclasses.is_dataclass(config_class(name))
    assert [field.name for field in dataclasses.fields(method)] == ["config", "num_classes"]


def test_a_method_may_come_from_any_module():
    assert method_class("hcml_jax.methods.hcml:HCML") is HCML
    for name, message in (
        ("hclm", "no method 'hclm'. Did you mean 'hcml'"),
        ("nowhere.at:All", "'nowhere.at:All' cannot be imported: No module named 'nowhere'"),
        ("tests.methods.moco:Moco", "cannot be imported.*Moco"),
    ):
        with pytest.raises(ConfigError, match=message):
            build_method({"name": name}, 3)


@pytest.mark.parametrize("name", ["turn left", "SwipeRight", "translate_left", "RIGHT-hand", "left"])
def test_class_names_that_tell_sides_are_known(name):
    assert preflight._SIDES.search(name)
    assert not preflight._SIDES.search("Bright Leftover cleft copyright".lower())
