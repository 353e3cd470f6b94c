"""The network of motion maps: its parts, what they begin as, its sizes, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hcml_jax.config import ConfigError
from hcml_jax.methods import build_method
from hcml_jax.models import MotionMapConfig, MotionMapNetwork, build_backbone
from hcml_jax.models.cost import multiply_adds
from hcml_jax.models.motion_map_decoder import MotionMapDecoder
from hcml_jax.models.motion_upsampler import MotionMaps, MotionUpsampler, upsample_maps
from hcml_jax.ops import apply_motion_maps, guided_similarity, periodic_shuffle

SMALL = {"width": 4, "stem_pool": False}
SIZES = {
    "filter_size": 3,
    "upsampled_filter_size": 5,
    "decoder_widths": (6, 5),
    "lr_widths": (4, 4),
    "lr_strides": (2, 1),
    "hr_widths": (4, 4),
    "hr_strides": (2, 2),
}
PAPER = {"name": "cgm_net", "stages": {"motion": {"steps": 1}, "joint": {"steps": 1}}}


def rand(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def network(upsampling="guided", scale=4, **fields):
    context = build_backbone("resnet_10", last="res3", **SMALL) if upsampling == "guided" else None
    pipelines = ("backbone", "lr") if upsampling == "none" else ("backbone", "lr", "hr")
    config = MotionMapConfig(scale=scale, upsampling=upsampling, **SIZES | fields)
    backbone = build_backbone("r2d_10", **SMALL)
    return MotionMapNetwork(backbone, context, config, 3, pipelines)


def run(model, clip):
    return jax.jit(lambda clip: model.init_with_output(jax.random.key(0), clip, False))(clip)


def test_the_decoder_comes_to_the_grid_step_by_step():
    x = rand(2, 2, 3, 4, 7)
    model = MotionMapDecoder(widths=(6, 5), filter_size=3, channels=4)
    (maps, motion), variables = jax.jit(lambda x: model.init_with_output(jax.random.key(0), x, (8, 9, 16), False))(x)
    assert maps.shape == (2, 8, 9, 16, 9) and maps.dtype == jnp.float32 and motion.shape == (2, 8, 9, 16, 4)
    kernels = {name: tree["conv"]["kernel"].shape for name, tree in variables["params"].items() if "step" in name}
    assert kernels == {"step0": (3, 3, 3, 7, 6), "step1": (3, 3, 3, 6, 5)}


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ((4, 8, 16), r"decoder_widths: 1 steps.* end at \(4, 6, 8\) cells"),
        ((2, 2, 4), "are finer than the motion maps'"),
    ],
)
def test_a_grid_out_of_reach_is_refused(grid, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(lambda x: MotionMapDecoder((6,)).init(jax.random.key(0), x, grid, False), rand(2, 2, 3, 4, 7))


def test_the_upsampler_is_that_of_the_equations():
    """Eq. 2 to 5 by the operations, its convolution as a loop over the 3x3 neighbours."""
    maps, motion, context = rand(1, 2, 4, 5, 9), rand(1, 2, 4, 5, 3, seed=1), rand(1, 2, 4, 5, 3, seed=2)
    model = MotionUpsampler(scale=2, filter_size=5)
    variables = model.init(jax.random.key(0), maps, motion, context)
    kernel = rand(*variables["params"]["filters"]["conv"]["kernel"].shape, seed=3)
    bias = rand(100, seed=4)
    found = model.apply({"params": {"filters": {"conv": {"kernel": kernel, "bias": bias}}}}, maps, motion, context)
    s = np.asarray(guided_similarity(maps, motion, context))[..., None]
    joined = np.concatenate([context, motion, s, s * context, s * motion], -1)
    padded = np.pad(joined / np.sqrt(9 * 13), [(0, 0), (0, 0), (1, 1), (1, 1), (0, 0)])
    pixels = bias + sum(padded[:, :, y : y + 4, x : x + 5] @ kernel[0, y, x] for y, x in np.ndindex(3, 3))
    expected = np.asarray(periodic_shuffle(pixels, 2)) + (np.arange(25) == 12)
    np.testing.assert_allclose(found.maps, expected, rtol=1e-4, atol=1e-4)
    assert found.dilation == 1


def test_without_context_motion_features_stand_in_its_place():
    model, clip = network("learnt"), rand(1, 4, 32, 32, 3)
    moved, variables = run(model, clip)
    upsampler = MotionUpsampler(scale=4, filter_size=5)
    expected = upsampler.apply({"params": variables["params"]["upsampler"]}, moved.lr.maps, moved.motion, moved.motion)
    np.testing.assert_allclose(moved.hr.maps, expected.maps, rtol=1e-4, atol=1e-5)


def linear(x, axis, size):
    """Bilinear resizing along an axis: centres of pixels at halves, the nearest value beyond those at the ends."""
    places = (np.arange(size) + 0.5) * x.shape[axis] / size - 0.5
    known = np.arange(x.shape[axis])
    return np.apply_along_axis(lambda line: np.interp(places, known, line), axis, x)


def test_a_step_of_the_decoder_is_linear_upsampling_and_a_convolution():
    """By hand: twice the size, 3x3x3, fresh statistics, ReLU; then a convolution to filters, beside those that copy."""
    x, grid = rand(1, 2, 3, 4, 3), (4, 6, 8)
    model = MotionMapDecoder(widths=(5,), filter_size=3, channels=0)
    fresh = model.init(jax.random.key(0), x, grid, False)
    drawn = jax.tree.map(lambda p: rand(*p.shape, seed=p.size), fresh["params"])
    maps, motion = jax.jit(lambda x: model.apply({**fresh, "params": drawn}, x, grid, False))(x)

    def convolved(x, kernel):
        padded = np.pad(x, [(0, 0), (1, 1), (1, 1), (1, 1), (0, 0)])
        t, h, w = x.shape[1:4]
        shifts = np.ndindex(3, 3, 3)
        return sum(padded[:, a : a + t, b : b + h, c : c + w] @ kernel[a, b, c] for a, b, c in shifts)

    step = drawn["step0"]
    for axis, size in enumerate(grid, 1):
        x = linear(x, axis, size)
    norm = step["norm"]["norm"] if "norm" in step["norm"] else step["norm"]
    expected = np.maximum(convolved(x, step["conv"]["kernel"]) / np.sqrt(1 + 1e-5) * norm["scale"] + norm["bias"], 0)
    np.testing.assert_allclose(motion, expected, rtol=1e-3, atol=1e-3)
    last = drawn["maps"]["conv"]
    expected = convolved(expected / np.sqrt(27 * 5), last["kernel"]) + last["bias"] + (np.arange(9) == 4)
    np.testing.assert_allclose(maps, expected, rtol=1e-3, atol=1e-3)


def test_interpolated_filters_are_spread_with_holes():
    """Table 6: entries upsampled one by one, what they reach times as far."""
    maps, frames = rand(1, 2, 3, 4, 9), rand(1, 2, 12, 16, 3, seed=1)
    nearest = upsample_maps(maps, 4, "nearest")
    expected = np.repeat(np.repeat(maps, 4, axis=2), 4, axis=3)
    np.testing.assert_allclose(nearest.maps, expected, rtol=1e-6)
    np.testing.assert_allclose(nearest.apply(frames), apply_motion_maps(frames, expected, dilation=4), rtol=1e-5)
    bilinear = upsample_maps(maps, 4, "bilinear")
    assert bilinear.maps.shape == expected.shape and bilinear.dilation == 4
    middle = (5 * maps[:, :, 0, 0] + 3 * maps[:, :, 0, 1]) / 8  # of the third of four columns: 1/8 behind the cell's
    np.testing.assert_allclose(bilinear.maps[:, :, 0, 2], (7 * maps[:, :, 0, 0] + maps[:, :, 0, 1]) / 8, rtol=1e-4)
    np.testing.assert_allclose(bilinear.maps[:, :, 0, 3], middle, rtol=1e-4)


@pytest.mark.parametrize("upsampling", ["guided", "learnt", "nearest", "bilinear", "none"])
def test_a_fresh_network_nearly_copies(upsampling):
    clip = rand(2, 8, 32, 32, 3)
    moved, variables = run(network(upsampling), clip)
    channels = 8 if upsampling == "guided" else 5
    assert moved.lr.maps.shape == (2, 8, 8, 8, 9) and moved.motion.shape == (2, 8, 8, 8, channels)
    assert set(moved.logits) == {"backbone", "lr"} | ({"hr"} if upsampling != "none" else set())
    assert all(scores.shape == (2, 3) for scores in moved.logits.values())
    assert ("motion" in variables["params"]["decoder"]) == (upsampling == "guided")
    assert ("context" in variables["params"]) == (upsampling == "guided")
    assert ("upsampler" in variables["params"]) == (upsampling in ("guided", "learnt"))
    if upsampling == "none":
        assert moved.hr is None
    else:
        error = np.abs(np.asarray(moved.hr.apply(clip)) - clip).mean()
        assert 0 < error < 0.1 * np.abs(clip).mean()


@pytest.mark.parametrize("scale", [1, 2, 8, 16])
def test_any_scale_that_divides(scale):
    """Context features are brought to the grid of the low resolution; the decoder has the steps that it takes."""
    widths = (5,) * {1: 4, 2: 3, 8: 1, 16: 1}[scale]
    model = network(scale=scale, decoder_widths=widths)
    model = model.clone(backbone=build_backbone("r2d_10", **SMALL, temporal_strides=(1, 1, 2, 1)))
    clip = jax.ShapeDtypeStruct((1, 2, 64, 64, 3), jnp.float32)
    moved, _ = jax.eval_shape(lambda clip: model.init_with_output(jax.random.key(0), clip, False), clip)
    assert moved.lr.maps.shape == (1, 2, 64 // scale, 64 // scale, 9)
    assert moved.hr.maps.shape == (1, 2, 64, 64, 25)


def test_slowfast_decodes_both_of_its_pathways():
    """Of 16 frames the slow pathway sees 0, 5, 10, 15: maps of a frame are made of the nearest one's."""
    backbone = build_backbone("slowfast_r50_8x8", width=8)
    slow, fast = rand(2, 4, 1, 1, 3), rand(2, 16, 1, 1, 2, seed=1)
    found = backbone.last_map({"res5": slow, "fast_res5": fast})
    np.testing.assert_array_equal(found[..., :3], np.repeat(slow, (3, 5, 5, 3), axis=1))
    np.testing.assert_array_equal(found[..., 3:], fast)
    model = network(decoder_widths=(5,) * 3).clone(backbone=backbone)
    clip = jax.ShapeDtypeStruct((1, 8, 32, 32, 3), jnp.float32)
    moved, variables = jax.eval_shape(lambda clip: model.init_with_output(jax.random.key(0), clip, False), clip)
    assert moved.lr.maps.shape == (1, 8, 8, 8, 9)
    assert variables["params"]["decoder"]["step0"]["conv"]["kernel"].shape[-2] == 8 * 32 + 32


def test_a_scale_that_does_not_divide_is_refused():
    with pytest.raises(ValueError, match="scale: frames of 32 x 34 pixels do not divide by 4"):
        jax.eval_shape(lambda x: network().init(jax.random.key(0), x, False), rand(1, 8, 32, 34, 3))


def test_filters_larger_than_the_frame_are_refused():
    maps = MotionMaps(jnp.zeros((1, 1, 4, 4, 25)))
    with pytest.raises(ValueError, match="filters of 5 x 5 are larger than the 4 x 4 pixels"):
        maps.apply(jnp.zeros((1, 1, 4, 4, 3)))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"scale": 0}, "scale must be 1 or more"),
        ({"filter_size": 4}, "filter_size must be odd, for a filter has a middle; found 4"),
        ({"upsampled_filter_size": 10}, "upsampled_filter_size must be odd"),
        ({"upsampled_filter_size": 3}, "upsampled_filter_size must be 5 or more at scale 4"),
        ({"upsampled_filter_size": 1, "scale": 1}, "upsampled_filter_size must be 3 or more at scale 1"),
        ({"upsampling": "bilinaer"}, "upsampling: there is no 'bilinaer'. Did you mean 'bilinear'"),
        ({"decoder_widths": ()}, "decoder_widths must be numbers"),
        ({"lr_strides": (2,)}, "lr_widths and lr_strides must be as many"),
    ],
)
def test_wrong_sizes_are_named(fields, message):
    with pytest.raises(ConfigError, match=message):
        MotionMapConfig(**SIZES | fields)


@pytest.fixture(scope="module")
def paper():
    """The network of UCF-101's 101 classes, and what is counted of each pipeline of Table 8."""
    network = build_method(PAPER, 101).network
    clip = jax.ShapeDtypeStruct((1, 16, 112, 112, 3), jnp.float32)
    variables = jax.eval_shape(lambda clip: network.init(jax.random.key(0), clip, False), clip)

    def billions(*pipelines, motion=True):
        def scores(variables, clip):
            moved = network.apply(variables, clip, False)
            return [moved.logits[name] for name in pipelines], moved.motion if "lr" in pipelines and motion else None

        return sum(multiply_adds(scores, variables, clip).values()) / 1e9

    millions = {name: sum(x.size for x in jax.tree.leaves(tree)) / 1e6 for name, tree in variables["params"].items()}
    return millions, billions


@pytest.mark.parametrize(
    ("modules", "expected"),
    [
        ((), 33.2),
        (("decoder", "lr_action"), 45.73),
        (("decoder", "context", "upsampler", "hr_action"), 48.12),
        (("decoder", "lr_action", "context", "upsampler", "hr_action"), 53.63),
    ],
)
def test_parameters_are_those_of_table_8(paper, modules, expected):
    millions, _ = paper
    found = sum(millions[name] for name in ("backbone", "classifier", *modules))
    assert found == pytest.approx(expected, rel=0.015)


def test_costs_beside_table_8(paper):
    """What is added to the baseline: ours 10.9, 132.0 and 132.3, the paper's 11.0, 136.4 and 136.7.

    The motion features, 2.8, are counted with the low resolution, which itself does not need them: without them it adds
    8.2. The paper's baseline, 19.3, is not reproduced: it is 2.3 times the published 3D-ResNet-18's 8.3, while from 18
    to 34 layers the paper adds four times what the published ones do. No size of clips gives both.
    """
    _, billions = paper
    baseline = billions("backbone")
    assert baseline == pytest.approx(8.3, rel=0.01)
    for pipelines, expected in ((("lr",), 30.3), (("hr",), 155.7), (("lr", "hr"), 156.01)):
        assert billions("backbone", *pipelines) - baseline == pytest.approx(expected - 19.3, rel=0.05)
    assert billions("backbone", "lr", motion=False) - baseline == pytest.approx(8.2, rel=0.01)


def test_sizes_that_nothing_uses_are_not_compared():
    for upsampling in ("nearest", "none"):
        assert MotionMapConfig(filter_size=9, upsampling=upsampling).filter_size == 9
    assert MotionMapConfig(scale=1, filter_size=9, upsampled_filter_size=9).scale == 1
