"""R2D and R(2+1)D, and their motion blocks: shapes, parameter and multiply-add counts, fresh blocks, errors."""

import functools

import chex
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.interpreters import partial_eval

from hcml_jax.batch import blank_batch
from hcml_jax.config import ConfigError
from hcml_jax.methods import build_method
from hcml_jax.models import (
    BACKBONES,
    BackboneConfig,
    MotionBlock,
    MotionBlockConfig,
    build_backbone,
    convolution,
    resnet,
)
from hcml_jax.models.cost import multiply_adds
from hcml_jax.training.freezing import path_names
from tests.models.test_convolution import plain

SMALL = {"width": 8, "stem_pool": False, "motion": MotionBlockConfig(2, 2, 4, 2)}


def shapes_of(name, clip_shape, **options):
    model = build_backbone(name, **options)
    clip = jax.ShapeDtypeStruct(clip_shape, jnp.float32)
    variables = jax.eval_shape(lambda x: model.init(jax.random.key(0), x, False), clip)
    outputs = jax.eval_shape(lambda v, x: model.apply(v, x, train=False), variables, clip)
    return model, variables, clip, outputs


def count(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize("name", BACKBONES)
def test_every_backbone_gives_what_its_feature_spec_says(name):
    """Also where sizes do not divide by the strides, with a motion block behind every stage."""
    frames, side = (64, 112) if name.startswith("slowfast") else (18, 112)
    model = build_backbone(name, motion_blocks=build_backbone(name).stages)
    clip = jax.ShapeDtypeStruct((2, frames, side, side + 8, 3), jnp.float32)
    (_, features), variables = jax.eval_shape(lambda x: model.init_with_output(jax.random.key(0), x, False), clip)
    assert features.keys() == model.feature_spec.keys()
    for key, spec in model.feature_spec.items():
        grid = [-(-n // s) for n, s in zip(clip.shape[1:4], spec.strides, strict=True)]
        if name == "s3d" and key in ("mixed5", "level4"):  # its last pool drops what is left over
            grid = [2, 3, 4]
        chex.assert_shape(features[key], (2, *grid, spec.channels))
    levels = {f"level{n}" for n in range(len(model.stages))}
    known = {*model.modules_of(model.stages[-1]), *levels}
    beside = {"slowfast": {"fast_res5"}, "c3d": {"fc6", "fc7"}}.get(name.split("_")[0], set())
    assert variables["params"].keys() == known | beside


def test_strides_of_a_residual_network_may_be_others():
    fields = {"width": 4, "stem_pool": False, "temporal_strides": (1, 1, 1, 2), "spatial_strides": (1, 2, 2, 1)}
    model = BackboneConfig("r2d_10", **fields).build()
    assert model.feature_spec["res5"].strides == (2, 8, 8)
    clip = jax.ShapeDtypeStruct((1, 4, 48, 48, 3), jnp.float32)
    (_, features), _ = jax.eval_shape(lambda x: model.init_with_output(jax.random.key(0), x, False), clip)
    assert features["res4"].shape == (1, 4, 6, 6, 16) and features["res5"].shape == (1, 2, 6, 6, 32)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"width": -1}, "width must be 1 or more"),
        ({"temporal_strides": (1, 2, 2)}, r"temporal_strides must be four numbers.*not \(1, 2, 2\)"),
        ({"spatial_strides": (1, 2, 2, 0)}, r"spatial_strides must be four numbers.*not \(1, 2, 2, 0\)"),
        ({"name": "i3d", "spatial_strides": (1, 2, 2, 1)}, "'i3d' has no option spatial_strides"),
    ],
)
def test_wrong_options_are_named(fields, message):
    with pytest.raises(ConfigError, match=message):
        BackboneConfig(**fields)


def test_a_residual_network_may_end_at_any_stage():
    model = build_backbone("resnet_10", width=4, stem_pool=False, last="res3")
    clip = jax.ShapeDtypeStruct((1, 2, 32, 32, 3), jnp.float32)
    (embedding, features), variables = jax.eval_shape(
        lambda x: model.init_with_output(jax.random.key(0), x, False), clip
    )
    assert set(features) == {"stem", "res2", "res3"} == set(model.feature_spec) and embedding.shape == (1, 8)
    assert set(variables["params"]) == {"stem", "res2", "res3"}
    with pytest.raises(ValueError, match="last: expected one of res2, res3, res4, res5, found 'stem'"):
        build_backbone("resnet_10", last="stem")


def test_features_stand_at_frames_of_the_clip():
    clip = jnp.arange(32).reshape(1, 32, 1)
    slowfast, r3d = build_backbone("slowfast_r50_8x8"), build_backbone("r3d_18")
    # as PyTorch's linspace(0, 31, 8).long() has them
    assert slowfast.frames_of("res4", clip).ravel().tolist() == [0, 4, 8, 13, 17, 22, 26, 31]
    assert slowfast.frames_of("fast_res4", clip).ravel().tolist() == list(range(32))
    assert r3d.frames_of("res4", clip).ravel().tolist() == list(range(0, 32, 4))


@pytest.mark.parametrize(
    ("length", "conv1", "mixed4"), [(16, 1, [3, 7, 11, 15]), (17, 0, [0, 4, 8, 12, 16]), (18, 1, [1, 5, 9, 13, 17])]
)
def test_i3ds_features_stand_at_the_middle_of_what_they_see(length, conv1, mixed4):
    """TensorFlow pads even lengths by 2 and 3 for conv1: its first cell sees frames -2 to 4, whose middle is 1."""
    clip = np.arange(length)[None]
    i3d, s3d = (build_backbone(name, motion_blocks=True) for name in ("i3d", "s3d"))
    assert i3d.frames_of("level0", clip)[0].tolist() == list(range(conv1, length, 2))
    assert i3d.frames_of("level2", clip)[0].tolist() == mixed4
    assert s3d.frames_of("level2", clip)[0].tolist() == list(range(0, length, 4))


def test_a_clip_shorter_or_smaller_than_the_strides_is_refused(key):
    r3d, slowfast = build_backbone("r3d_18"), build_backbone("slowfast_r50_8x8")
    for shape in [(1, 7, 112, 112, 3), (1, 16, 15, 112, 3), (16, 112, 112, 3)]:
        with pytest.raises(ValueError, match=r"8 frames or more of 16 x 16 pixels.*found \["):
            r3d.init(key, jnp.zeros(shape), False)
    with pytest.raises(ValueError, match="18 frames do not divide by 4"):
        jax.eval_shape(lambda: slowfast.init(key, jnp.zeros((1, 18, 64, 64, 3)), False))
    c3d = build_backbone("c3d")
    variables = jax.eval_shape(lambda: c3d.init(key, jnp.zeros((1, 16, 112, 112, 3)), False))
    with pytest.raises(ValueError, match=r"made for clips that give a grid of \(1, 4, 4\); .*2, 4"):
        jax.eval_shape(lambda v: c3d.apply(v, jnp.zeros((1, 32, 112, 112, 3)), False), variables)


@pytest.mark.parametrize("name", ["r3d_18", "i3d", "slowfast_r50_4x16", "c3d"])
def test_hcml_takes_any_family(name):
    """Every parameter has its stage, and the loss of a stage depends on all that it trains."""
    stages = {f"level{n}": {"steps": 1} for n in range(3)} | {"joint": {"steps": 1}}
    config = {"name": "hcml", "backbone": {"name": name}, "stages": stages}
    config["joint_batch_norm_group"] = 0
    method = build_method(config, num_classes=2)
    batch = blank_batch(2, (32, 112, 112, 3), like=jax.ShapeDtypeStruct)
    key = jax.random.key(0)
    variables = jax.eval_shape(method.init, key, batch)
    encoded = jax.eval_shape(lambda v, b: method.encode(v, b.clip[:, 0]), variables, batch)
    frames = method.frames_of(32)
    assert set(frames) == set(encoded.maps) == {"level0", "level1", "level2"}
    assert all(len(frames[level]) == maps.shape[1] for level, maps in encoded.maps.items())
    for stage in method.stages:
        loss = functools.partial(method.loss, key=key, stage=stage, train=True)
        for path in unused(lambda *args, loss=loss: loss(*args)[0], variables, batch):
            assert path[0] != "params" or not stage.trainable(path[1:]), (stage.name, path)
    for number, stage in enumerate(method.stages[:3]):
        learnt_by_then = method.stages[: number + 1]
        loss = functools.partial(method.loss, key=key, stage=stage, train=True)
        left = set(unused(lambda *args, loss=loss: loss(*args)[0], variables, batch))
        for path in flax.traverse_util.flatten_dict(variables["params"]):
            if ("params", *path) not in left:
                assert any(s.trainable(path) for s in learnt_by_then), (stage.name, path)
    learnt = method.backbone.modules_of(method.backbone.motion_stages[-1])
    learnt += ("level0", "level1", "level2")
    for path in flax.traverse_util.flatten_dict(variables["params"]):
        trained = [stage.name for stage in method.stages[:3] if stage.trainable(path)]
        above = path[1] not in learnt or path[:3] == ("backbone", "level2", "expand")
        assert len(trained) == (0 if above else 1), path


def unused(function, variables, *args):
    """Paths of the variables that the outcome of `function(variables, *args)` does not depend on."""
    program = jax.make_jaxpr(function)(variables, *args)
    _, used = partial_eval.dce_jaxpr(program.jaxpr, [True])
    flat, _ = jax.tree.flatten_with_path(variables)
    inputs = zip(flat, used, strict=False)  # those of `args` come behind
    return [path_names(path) for (path, _), is_used in inputs if not is_used]


def test_r2d_and_r2plus1d_equal_their_plain_3d_form(monkeypatch):
    """Every convolution, 1x1x1 and 1x7x7 ones too, as XLA's own 3-D one: embedding and gradients in training."""
    monkeypatch.setitem(resnet.DEPTHS, 14, ((1, 1, 1, 1), True))  # one bottleneck a stage
    model = resnet.ResNet(
        depth=14,
        temporal_stages=("res4", "res5"),  # R2D below
        temporal_strides=(1, 2, 2, 1),
        width=8,
    )
    clip = np.random.default_rng(0).normal(size=(2, 8, 64, 64, 3)).astype(np.float32)
    variables = jax.jit(lambda: model.init(jax.random.key(0), clip, False))()

    def run():
        def loss(params):
            given = {**variables, "params": params}
            (embedding, _), _ = model.apply(given, clip, True, mutable=["batch_stats"])
            return jnp.square(embedding).sum(), embedding

        return jax.jit(jax.value_and_grad(loss, has_aux=True))(variables["params"])

    (_, embedding), gradients = run()
    monkeypatch.setattr(convolution, "convolve", plain)
    (_, expected), expected_gradients = run()
    np.testing.assert_allclose(embedding, expected, rtol=1e-4, atol=1e-5)
    flat = flax.traverse_util.flatten_dict(expected_gradients, sep="/")
    for name, gradient in flax.traverse_util.flatten_dict(gradients, sep="/").items():
        scale = np.abs(flat[name]).max()
        np.testing.assert_allclose(gradient, flat[name], atol=2e-3 * scale, err_msg=name)


def test_temporal_stages_of_a_shallow_network_are_bottlenecks_and_said_to_be():
    options = {"temporal_stages": ("res4",), "width": 8, "stem_pool": False}
    _, _, _, (_, features) = shapes_of("r2d_10", (1, 4, 32, 32, 3), **options)
    spec = build_backbone("r2d_10", **options).feature_spec
    assert {name: f.shape[-1] for name, f in features.items()} == {name: s.channels for name, s in spec.items()}
    assert spec["res4"].channels == 4 * 8 * 4


def test_c3d_drops_out_in_training_alone():
    model, rng = build_backbone("c3d"), np.random.default_rng(0)
    clip = rng.normal(size=(1, 16, 32, 32, 3)).astype(np.float32)
    abstract = jax.eval_shape(lambda x: model.init(jax.random.key(0), x, False), clip)
    variables = jax.tree.map(lambda v: rng.random(v.shape, np.float32) - 0.4, abstract)

    @functools.partial(jax.jit, static_argnums=1)
    def embed(variables, train, key):
        return model.apply(variables, clip, train, rngs={"dropout": key} if train else None)[0]

    keys = [jax.random.key(seed) for seed in (1, 2)]
    expected = embed(variables, False, keys[0])
    dropped, again = (embed(variables, True, key) for key in keys)
    alive = np.asarray(expected)[0] > 0
    assert 0.4 < np.mean(np.asarray(dropped)[0, alive] == 0) < 0.7
    assert not np.array_equal(dropped, again)


def test_motion_blocks_stand_at_the_papers_stages():
    _, _, _, (embedding, features) = shapes_of("r2d_50", (2, 16, 224, 224, 3), motion_blocks=True)
    chex.assert_shape(embedding, (2, 2048))
    for stage, time, side, channels in [
        ("res2", 16, 56, 256),
        ("res3", 8, 28, 512),
        ("res4", 4, 14, 1024),
        ("res5", 4, 7, 2048),
    ]:
        chex.assert_shape(features[stage], (2, time, side, side, channels))
    chex.assert_shape(features["level0"], (2, 16, 56, 56, 64))
    chex.assert_shape(features["level2"], (2, 4, 14, 14, 256))


def test_r2d_50_counts_parameters_like_resnet_50():
    _, variables, _, _ = shapes_of("r2d_50", (1, 4, 64, 64, 3))
    assert count(variables["params"]) == 23_508_032  # torchvision's resnet50 without `fc`


@pytest.mark.parametrize(
    ("name", "published"), [("r3d_18", 33_371_472), ("r2plus1d_18", 31_505_325), ("s3d", 8_320_048)]
)
def test_parameters_are_torchvisions_to_the_unit(name, published):
    _, variables, _, (embedding, _) = shapes_of(name, (1, 16, 64, 64, 3))
    assert count(variables["params"]) + 400 * (embedding.shape[-1] + 1) == published


def test_r2plus1d_101_is_resnet_101_with_temporal_convolutions_at_the_top():
    _, variables, _, _ = shapes_of("r2plus1d_101", (1, 4, 64, 64, 3))
    temporal = 23 * (3 * 256**2 + 2 * 256) + 3 * (3 * 512**2 + 2 * 512)
    # torchvision's resnet101 without `fc`
    assert count(variables["params"]) == 42_500_160 + temporal
    stages = {
        stage: any("temporal" in block for block in variables["params"][stage].values())
        for stage in ("res2", "res3", "res4", "res5")
    }
    assert stages == {"res2": False, "res3": False, "res4": True, "res5": True}


@pytest.mark.parametrize(
    ("name", "frames", "billions", "ratio", "ratio_run"),
    [("r2d_50", 16, 48.1, 1.184, 1.197), ("r2plus1d_101", 32, 148.0, 1.113, 1.120)],
)
def test_motion_blocks_cost_what_the_paper_says(name, frames, billions, ratio, ratio_run):
    """HCML Tables 2 and 3 at 256 x 256: 49 and 150 G, 1.18 and 1.11 times the bare backbone (spec section 9)."""
    totals, products = [], []
    for blocks in (False, True):
        model, variables, clip, _ = shapes_of(name, (1, frames, 256, 256, 3), motion_blocks=blocks)
        counts = multiply_adds(lambda v, x, m=model: m.apply(v, x, False), variables, clip)
        totals.append(counts["convolutions"])
        products.append(counts["products"])
    # The cost volumes by their definition: 49 products of the reduced channels at each position.
    levels = [(frames, 64, 32), (frames // 2, 32, 64), (frames // 4, 16, 128)]
    totals[1] += sum(49 * t * side * side * channels for t, side, channels in levels)
    assert totals[1] / 1e9 == pytest.approx(billions, abs=0.06)
    assert totals[1] / totals[0] == pytest.approx(ratio, abs=0.001)
    # What runs is the row form, which multiplies whole rows and drops what lies beyond the displacements.
    rows = [7 * t * side * side * (side // 2 + 6) * channels for t, side, channels in levels]
    assert products == [0, sum(rows)]
    assert (counts["convolutions"] + sum(rows)) / totals[0] == pytest.approx(ratio_run, abs=0.001)


def test_multiply_adds_counts_what_is_inside_jit_and_what_is_batched():
    x, kernel = jnp.zeros((2, 5, 5, 3)), jnp.zeros((3, 3, 3, 4))

    @jax.jit
    def convolution(x):
        return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))

    def function(x):
        return convolution(x), jnp.einsum("bhwc,bhvc->bhwv", x, x)

    counts = multiply_adds(function, x)
    assert counts == {"convolutions": 2 * 25 * 27 * 4, "products": 2 * 5 * 5 * 5 * 3}


def test_multiply_adds_counts_convolutions_as_they_are_defined():
    """Not as this machine runs them, and whatever was traced before."""
    x, kernel = jnp.zeros((1, 8, 6, 6, 64)), jnp.zeros((3, 3, 3, 2, 64))
    function = jax.jit(lambda x, kernel: convolution.convolve(x, kernel, (1, 1, 1), "half", 32))
    function.lower(x, kernel)
    for _ in range(2):
        expected = {"convolutions": 8 * 36 * 64 * 27 * 2, "products": 0}
        assert multiply_adds(function, x, kernel) == expected
        jaxpr = str(jax.make_jaxpr(function)(x, kernel))
        assert "feature_group_count=32" not in jaxpr
        with convolution.as_defined():
            jaxpr = str(jax.make_jaxpr(function)(x, kernel))
        assert jaxpr.count("conv_general_dilated[") == 1
        assert "feature_group_count=32" in jaxpr


def test_multiply_adds_leaves_out_what_no_output_needs_and_the_zeros_of_gradients():
    x, kernel = jnp.zeros((2, 8, 8, 3)), jnp.zeros((3, 3, 3, 4))

    def strided(x, kernel):
        layout = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(x, kernel, (2, 2), "SAME", dimension_numbers=layout)

    def function(x, kernel):
        y, backward = jax.vjp(strided, x, kernel)
        jnp.einsum("bhwc,cd->bhwd", y, jnp.zeros((4, 5)))  # unused
        return backward(y)

    forward = 2 * 16 * 27 * 4
    assert multiply_adds(function, x, kernel) == {"convolutions": 3 * forward, "products": 0}


def test_a_fresh_motion_block_leaves_the_backbone_as_it_was(key):
    clip = jax.random.normal(key, (2, 4, 32, 32, 3))
    bare, blocks = (build_backbone("r2d_10", motion_blocks=b, **SMALL) for b in (False, True))
    variables = blocks.init(key, clip, False)
    expected, _ = bare.apply(variables, clip, train=False)
    embedding, features = blocks.apply(variables, clip, train=False)
    np.testing.assert_array_equal(embedding, expected)
    assert {"level0", "level1", "level2"} <= features.keys()


def test_motion_features_see_motion_and_the_last_frame_sees_none(key):
    """With features of a frame and its shift, the motion features tell right from left; not at the last frame."""
    block = MotionBlock(MotionBlockConfig(1, 1, 2, 1))
    frame = jax.random.normal(key, (1, 1, 8, 8, 4))
    right = jnp.concatenate([frame, jnp.roll(frame, 1, axis=3)], axis=1)
    variables = block.init(key, right, False)
    still = jnp.concatenate([frame, frame], axis=1)
    (_, moved), (_, same) = (block.apply(variables, x, False) for x in (right, still))
    assert not np.allclose(moved[:, 0], same[:, 0])
    _, alone = block.apply(variables, right[:, 1:], False)
    np.testing.assert_allclose(moved[:, 1], alone[:, 0], rtol=1e-5, atol=1e-5)


def test_bfloat16_compute_keeps_float32_parameters_and_embedding(key):
    model = build_backbone("r2d_10", motion_blocks=True, dtype=jnp.bfloat16, **SMALL)
    clip = jax.random.normal(key, (1, 4, 32, 32, 3))
    variables = model.init(key, clip, False)
    embedding, features = model.apply(variables, clip, train=False)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    assert embedding.dtype == jnp.float32
    assert features["level1"].dtype == jnp.bfloat16


def test_wrong_names_and_sizes_are_refused(key):
    with pytest.raises(ValueError, match="no backbone is called 'r2d_5'.*Did you mean"):
        build_backbone("r2d_5")
    with pytest.raises(ValueError, match="no stage is called 'res9'"):
        build_backbone("r2d_10", motion_blocks=("res9",))
    with pytest.raises(ValueError, match=r"in the order of the stages: \('res3', 'res2'\)"):
        build_backbone("r2d_10", motion_blocks=("res3", "res2"))
    model = build_backbone("r2d_10", motion_blocks=True, width=4)
    with pytest.raises(ValueError, match="4 channels do not divide by 8"):
        model.init(key, jnp.zeros((1, 4, 32, 32, 3)), False)
