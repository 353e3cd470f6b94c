"""What FIMA needs no module for, and what it refuses."""

import functools

import jax
import pytest

from hcml_jax.config import ConfigError
from tests.methods.fima import ALONE, CLIP_SHAPE, a_batch, built, loss_of
from tests.methods.stages import begin


@pytest.fixture(scope="module")
def method():
    return built()


@pytest.fixture(scope="module")
def batch(method):
    return a_batch(method)


@pytest.fixture(scope="module")
def variables(method):
    return begin(method, a_batch(method))


def test_two_views_with_boxes_are_needed(method, variables, batch):
    loss = functools.partial(method.loss, stage=method.stages[0], train=True)
    for wrong in (batch._replace(box=None), batch._replace(clip=batch.clip[:, :1])):
        with pytest.raises(ValueError, match="two clips of each video are compared, and where they lie in it"):
            jax.eval_shape(loss, variables, wrong, jax.random.key(0))


def test_a_backbone_without_statistics_is_refused():
    one = built(backbone={"name": "c3d"}, **ALONE | {"instance_weight": 1.0})
    with pytest.raises(ValueError, match="backbone: 'c3d' has no batch normalisation"):
        jax.eval_shape(one.init, jax.random.key(0), a_batch(one, clip_shape=(32, 112, 112, 3)))


@pytest.mark.parametrize(
    ("weights", "modules", "queues"),
    [
        ({"instance_weight": 1.0}, set(), {"instance"}),
        ({"instance_weight": 1.0, "difference_weight": 1.0}, set(), {"instance", "difference"}),
        ({"pixel_weight": 1.0}, {"motion_decoder_shared"}, set()),
        ({"frame_weight": 1.0}, {"motion_decoder_shared"}, {"frame"}),
        ({"frame_weight": 1.0, "frame_loss": "mse"}, {"motion_decoder_shared"}, set()),
        ({"pixel_weight": 1.0, "decoder": {"layers": 0}}, set(), set()),
    ],
)
def test_what_no_term_needs_is_not_there(weights, modules, queues):
    one = built(**ALONE | weights)
    shapes = jax.eval_shape(one.init, jax.random.key(0), a_batch(one))
    assert set(shapes["params"]) == {"backbone", "projection_shared"} | modules
    assert set(shapes.get("queue", {})) == queues
    derived = jax.eval_shape(one.derive, shapes)
    assert set(derived["key_encoder"]["params"]) == {"backbone", "projection_shared"}
    jax.eval_shape(loss_of(one, train=True), derived, a_batch(one), jax.random.key(0))
    assert [*one.stages[0].terms] == [name.removesuffix("_weight") for name in weights if name.endswith("_weight")]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (ALONE, "must be 0 or more, one of them above 0"),
        ({"frame_loss": "infonce"}, "frame_loss: there is no 'infonce'. Did you mean 'info_nce'"),
        ({"first_difference": "warp"}, "first_difference: there is no 'warp'. Did you mean 'wrap'"),
        ({"foreground_of": ("rbg",)}, "foreground_of: there is no 'rbg'. Did you mean 'rgb'"),
        ({"foreground_on": ("targets",)}, "foreground_on: there is no 'targets'. Did you mean 'target'"),
        ({"foreground_of": ()}, "foreground_of must name"),
        ({"decoder": {"layers": 0}}, "frame_weight: L_Fra needs a motion decoder"),
        ({"decoder": {"width": 9, "heads": 2}}, "width and heads must be"),
        ({"temperature": 0.0}, "temperature must be above 0"),
        ({"threshold": -1.0}, "threshold must be above 0"),
        ({"background": 1.0}, "background must be from 0 up and below 1"),
        ({"momentum": 1.5}, "momentum must be above 0"),
        ({"stride": 0}, "stride must be 1 or more"),
        ({"min_offset": 9, "max_offset": 3}, "area, min_offset, max_offset: min_offset must be 0 or more"),
        ({"part_area": (0.5, 0.2)}, "part_area: area and aspect must be"),
        ({"motion_blocks": ("res9",)}, "motion_blocks: no stage is called 'res9'"),
        ({"stages": {}}, "stages must be exactly 'contrast'"),
    ],
)
def test_wrong_fields_are_named(fields, message):
    with pytest.raises(ConfigError, match=message):
        built(**fields)


@pytest.mark.parametrize(
    ("fields", "clip_shape", "message"),
    [
        ({"queue": 15}, CLIP_SHAPE, "queue: 15 keys are fewer than the 16 of a batch"),
        ({"pixel_queue": 60}, CLIP_SHAPE, "pixel_queue: 60 keys are fewer than the 144 of a batch"),
        ({"pixel_group": 3}, CLIP_SHAPE, "pixel_group: 4 clips do not divide into groups of 3"),
        ({"batch_norm_group": 4}, CLIP_SHAPE, "batch_norm_group: 4 clips are the whole batch of 4"),
        ({}, (7, 48, 48, 3), "stride: 7 frames that are read do not divide by 2"),
        ({"frame_loss": "triplet"}, (4, 48, 48, 3), "frame_loss: 'triplet' compares parts of a clip"),
        ({}, (10, 48, 48, 3), "clips of 5 x 48 x 48 that are shown do not divide by .*, 2 x 16 x 16"),
        ({}, (8, 48, 56, 3), "clips of 4 x 48 x 56 that are shown do not divide by .*, 2 x 16 x 16"),
    ],
)
def test_what_does_not_fit_is_named(fields, clip_shape, message):
    one = built(**fields)
    given = a_batch(one, clip_shape=clip_shape)
    variables = jax.eval_shape(lambda key: one.derive(one.init(key, given)), jax.random.key(0))
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(
            functools.partial(one.loss, stage=one.stages[0], train=True), variables, given, jax.random.key(0)
        )
