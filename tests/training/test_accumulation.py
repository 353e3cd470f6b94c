"""A batch in parts is the batch as a whole, wherever that is so; elsewhere it is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hcml_jax.config import ConfigError
from hcml_jax.methods import build_method
from hcml_jax.training.accumulation import accumulated_gradients, check_micro_batches
from hcml_jax.training.mesh import Layout, make_mesh
from hcml_jax.training.optimizer import make_optimizer
from hcml_jax.training.step import init_state, init_variables, make_train_step
from tests.methods import tiny
from tests.methods.stages import leaves

CLIPS = 8


def supervised(micro_batches):
    config = {
        "name": "supervised",
        "backbone": tiny.BACKBONE,
        "flip": False,
        "batch_norm_group": 2,
        "stages": {"supervised": tiny.schedule(micro_batches=micro_batches)},
    }
    return build_method(config, num_classes=3)


def one_step(method):
    layout, stage = Layout(make_mesh()), method.stages[0]
    optimizer = make_optimizer(stage.schedule, clips=CLIPS, batch_size=CLIPS)
    variables = init_variables(method, tiny.CLIP_SHAPE, 0, layout)
    state = init_state(variables, stage, optimizer, layout)
    return make_train_step(method, stage, optimizer, 0, layout)(state, tiny.batch(CLIPS))


def test_parts_give_the_gradients_statistics_and_metrics_of_the_whole():
    whole, parts = (leaves(jax.device_get(one_step(supervised(n)))) for n in (1, 4))
    assert any("/trace/" in name for name in whole)
    for name, expected in whole.items():
        scale = max(np.abs(expected).max(), 1e-6)
        np.testing.assert_allclose(parts[name], expected, rtol=1e-5, atol=1e-4 * scale, err_msg=name)


def test_parts_draw_from_keys_of_their_own():
    def loss(weight, batch, key):
        drawn = jax.random.normal(key, batch["clip"].shape)
        return jnp.mean(weight * drawn), {"drawn": drawn.mean()}

    key, batch = jax.random.key(0), {"clip": jnp.zeros((CLIPS, 3))}
    gradient, outputs = accumulated_gradients(loss, jnp.ones(()), batch, key, 4, Layout(make_mesh()))
    parts = [jax.random.normal(jax.random.fold_in(key, n), (CLIPS // 4, 3)) for n in range(4)]
    expected = np.mean([np.mean(part) for part in parts])
    np.testing.assert_allclose([gradient, outputs["drawn"]], expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("number", "batch_size", "devices", "message"),
    [
        (0, 8, 1, "level0.micro_batches is 2, but batch normalisation of this stage"),
        (1, 8, 1, "level1.micro_batches is 2, but contrastive/level1 and batch norm.*more devices"),
        (3, 8, 1, "joint.micro_batches is 2, but contrastive/level1 and contrastive/level2"),
    ],
)
def test_losses_over_the_whole_batch_are_refused(number, batch_size, devices, message):
    stages = {name: tiny.schedule(micro_batches=2) for name in ("level0", "level1", "level2", "joint")}
    method = tiny.hcml(stages=stages, joint_batch_norm_group=2)
    with pytest.raises(ConfigError, match=message):
        check_micro_batches(method.stages[number], batch_size, devices)


@pytest.mark.parametrize(
    ("batch_size", "devices", "message"),
    [
        (8, 4, "parts of 2 of 8 clips do not divide by 4 devices"),
        (12, 1, "parts of 3 of 12 clips do not divide by 2 clips of a group"),
        (10, 1, "parts of 2.5 of 10 clips"),
    ],
)
def test_parts_that_do_not_divide_are_refused(batch_size, devices, message):
    with pytest.raises(ConfigError, match=message):
        check_micro_batches(supervised(4).stages[0], batch_size, devices)


def test_the_joint_stage_without_contrast_may_be_taken_in_parts():
    stages = {name: tiny.schedule() for name in ("level0", "level1", "level2")}
    method = tiny.hcml(
        stages=stages | {"joint": tiny.schedule(micro_batches=2)},
        joint_batch_norm_group=2,
        contrastive_weights=(0.0, 0.0),
    )
    check_micro_batches(method.stages[3], 8, 2)
    assert set(method.stages[3].terms) == {"classification", "reconstruction/level0"}
