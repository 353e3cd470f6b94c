"""HCML's stages: what trains, what stays bit for bit, what each loss is made of, what may be configured."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params

from hcml_jax.config import ConfigError
from hcml_jax.contrastive import info_nce, info_nce_in_time, pair_predictions
from hcml_jax.methods import build_method
from hcml_jax.rng import streams
from hcml_jax.training import freezing
from hcml_jax.training.mesh import Layout, make_mesh
from hcml_jax.training.optimizer import make_optimizer
from hcml_jax.training.step import init_state
from tests.methods import tiny
from tests.methods.stages import leaves, moved, run_stage


@pytest.fixture(scope="module")
def method():
    return tiny.hcml()


@pytest.fixture(scope="module")
def variables(method):
    return tiny.init(method)


def test_levels_alone_are_deployed_with_their_flow_head():
    levels, whole = tiny.hcml(joint=False), tiny.hcml()
    assert (levels.deployed, levels.classifies) == (("backbone", "heads"), False)
    assert (whole.deployed, whole.classifies) == (("backbone", "classifier"), True)


LEVEL_MODULES = [
    {"backbone/stem", "backbone/res2", "backbone/level0", "heads/level0"},
    {"backbone/level0/expand", "backbone/res3", "backbone/level1", "heads/level1"},
    {"backbone/level1/expand", "backbone/res4", "backbone/level2", "heads/level2"},
]


@pytest.mark.parametrize("level", [0, 1, 2])
def test_a_stage_moves_its_own_parameters_and_statistics_and_nothing_else(method, variables, level):
    state, _ = run_stage(method, method.stages[level], variables)
    changed = moved(variables["params"], state.variables["params"])
    own = own_parameters(variables, level)
    # A ReLU may be dead for all clips of a test; what must not happen is a move outside.
    assert changed <= own
    assert {name.split("/")[1] for name in changed} == {m.split("/")[1] for m in LEVEL_MODULES[level]}
    statistics = moved(variables["batch_stats"], state.variables["batch_stats"])
    assert statistics == {
        name
        for name in leaves(variables["batch_stats"])
        if any(name.startswith(module + "/") for module in LEVEL_MODULES[level])
    }


def test_a_shorter_hierarchy_learns_what_a_longer_one_begins_with(method, variables):
    """`benchmarks/ablation.py` starts its shorter hierarchies from HCML's own levels."""
    short = tiny.hcml(levels=("reconstruction",))
    found, expected = (
        leaves(run_stage(one, one.stages[0], begun)[0].variables)
        for one, begun in ((short, tiny.init(short)), (method, variables))
    )
    shared = {name for name in found if name.split("/", 1)[1].startswith(tuple(LEVEL_MODULES[0]))}
    assert shared == {name for name in expected if name.split("/", 1)[1].startswith(tuple(LEVEL_MODULES[0]))}
    for name in shared:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-4, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("level", [1, 2])
def test_the_lower_levels_motion_features_stay_bit_for_bit(method, variables, level):
    features = jax.jit(lambda *given: method.encode(*given).maps)
    clip = tiny.batch(seed=9).clip[:, 0]
    before = features(variables, clip)
    state, _ = run_stage(method, method.stages[level], variables, steps=3)
    after = features(state.variables, clip)
    for lower in range(level):
        np.testing.assert_array_equal(after[f"level{lower}"], before[f"level{lower}"])
    assert not np.array_equal(after[f"level{level}"], before[f"level{level}"])


def own_parameters(variables, level):
    """Names of what the spec's table lets a level's stage train; all for the joint stage (level 3)."""
    names = leaves(variables["params"])
    if level == 3:
        return set(names)
    return {
        name
        for name in names
        if any(name.startswith(module + "/") for module in LEVEL_MODULES[level])
        and not name.startswith(f"backbone/level{level}/expand")
    }


@pytest.mark.parametrize("level", range(4))
def test_what_is_frozen_has_no_gradient_and_no_optimizer_state(method, variables, level):
    stage = method.stages[level]
    selected = freezing.select(variables["params"], stage.trainable)
    gradients = jax.eval_shape(jax.grad(stage_loss(method, variables, stage)), selected)
    optimizer = make_optimizer(stage.schedule, clips=8, batch_size=4)
    state = init_state(variables, stage, optimizer, Layout(make_mesh()))
    momenta = {name.split("/trace/")[-1] for name in leaves(state.opt_state) if "/trace/" in name}
    own = own_parameters(variables, level)
    assert momenta == own
    flat, _ = jax.tree_util.tree_flatten_with_path(gradients)
    assert {"/".join(freezing.path_names(path)) for path, _ in flat} == own


@pytest.mark.parametrize("level", [0, 1, 2])
def test_g_trains_with_the_level_above_its_own(method, level):
    trainable = method.stages[level].trainable
    expands = [("backbone", f"level{l}", "expand", "kernel") for l in range(3)]
    assert [trainable(path) for path in expands] == [l == level - 1 for l in range(3)]


@pytest.mark.parametrize("number", [0, 1, 3])
def test_a_stage_trains_in_bfloat16_with_float32_parameters_and_losses(method, variables, number):
    halved = tiny.hcml(dtype="bfloat16")
    state, metrics = run_stage(halved, halved.stages[number], variables, steps=1)
    _, expected = run_stage(method, method.stages[number], variables, steps=1)
    for leaf in jax.tree.leaves((state.variables, metrics)):
        assert leaf.dtype == jnp.float32
    assert float(metrics["loss"]) == pytest.approx(float(expected["loss"]), rel=0.02)
    assert float(metrics["loss"]) != float(expected["loss"])


def stage_loss(method, variables, stage):
    """The stage's loss of its own parameters."""

    def loss(selected, batch=None):
        full = {**variables, "params": freezing.merge(selected, variables["params"])}
        batch = tiny.batch() if batch is None else batch
        return method.loss(full, batch, jax.random.key(0), stage, train=True)[0]

    return loss


def convolutions(jaxpr, side):
    """How many convolutions read or write maps of `side` x `side`."""
    count = 0
    for equation in jaxpr.eqns:
        shapes = [v.aval.shape for v in (*equation.invars, *equation.outvars)]
        is_convolution = equation.primitive.name == "conv_general_dilated"
        count += is_convolution and any(shape[1:3] == (side, side) for shape in shapes)
        count += sum(convolutions(inner, side) for inner in jaxprs_in_params(equation.params))
    return count


def test_a_frozen_level_is_not_differentiated(method, variables):
    """At level 0's resolution the gradient of level 2 holds the forward pass's convolutions and no more."""
    counts = {}
    for stage in (method.stages[0], method.stages[2]):
        selected = freezing.select(variables["params"], stage.trainable)
        loss = stage_loss(method, variables, stage)
        programs = (jax.make_jaxpr(f)(selected).jaxpr for f in (loss, jax.grad(loss)))
        counts[stage.name] = [convolutions(program, side=8) for program in programs]
    forward, backward = counts["level2"]
    assert backward == forward > 0
    forward, backward = counts["level0"]
    assert backward > forward


@pytest.mark.parametrize("level", range(3))
def test_nothing_above_the_level_is_computed(method, variables, level):
    stage = method.stages[level]
    selected = freezing.select(variables["params"], stage.trainable)
    program = jax.jit(jax.grad(stage_loss(method, variables, stage))).lower(
        selected,
        tiny.batch(),  # given: a constant would be folded
    )
    compiled = program.compile().as_text()
    kernels = {2: "3,3,8,16]", 3: "3,3,16,32]", 4: "3,3,32,64]"}  # first of res3, res4, res5
    seen = {number for number, kernel in kernels.items() if kernel in compiled}
    assert seen == set(range(2, 2 + level))


def weights(stage):
    return {name: term.weight for name, term in stage.terms.items()}


def test_the_weights_of_the_joint_loss_are_fields():
    method = tiny.hcml(reconstruction_weight=2.0, contrastive_weights=(0.5, 0.125))
    assert weights(method.stages[3]) == {
        "classification": 1.0,
        "reconstruction/level0": 2.0,
        "contrastive/level1": 0.5,
        "contrastive/level2": 0.125,
    }


def test_the_joint_loss_weighs_its_terms_as_equation_4(method, variables):
    stage = method.stages[3]
    assert weights(stage) == {
        "classification": 1.0,
        "reconstruction/level0": 15.0,
        "contrastive/level1": 0.25,
        "contrastive/level2": 0.25,
    }
    total, outputs = jax.jit(lambda v, b: method.loss(v, b, jax.random.key(0), stage, train=True))(
        variables, tiny.batch()
    )
    expected = sum(weight * outputs.metrics[name] for name, weight in weights(stage).items())
    np.testing.assert_allclose(total, expected, rtol=1e-6)
    np.testing.assert_allclose(
        outputs.metrics["reconstruction/level0"],
        outputs.metrics["reconstruction/level0/photometric"]
        + method.config.smoothness_weight * outputs.metrics["reconstruction/level0/smoothness"],
        rtol=1e-6,
    )


def test_contrast_is_against_every_sampled_target_of_the_batch(method, variables):
    """With all predictions equal (zero weights), every loss is the log of the number of candidates B N T."""
    heads = jax.tree.map(jnp.zeros_like, variables["params"]["heads"]["level1"])
    params = {**variables["params"], "heads": {**variables["params"]["heads"], "level1": heads}}
    _, outputs = jax.jit(lambda v, b: method.loss(v, b, jax.random.key(0), method.stages[1], train=True))(
        {**variables, "params": params}, tiny.batch(clips=4)
    )
    candidates = 4 * 4 * 4  # B = 4 clips, N = 4 positions, T = 4 frames at level 1
    np.testing.assert_allclose(outputs.metrics["contrastive/level1"], np.log(candidates), rtol=1e-5)


def side_of(method, variables, batch):
    """The side branch's outputs, of a fixed key."""
    clip = method.normalise(batch.clip[:, 0].astype(np.float32) / 255)
    rngs = {"positions": jax.random.key(0)}
    return method.network.apply(variables, clip, False, rngs=rngs, method=method.forward)[1]


@pytest.mark.parametrize(("frames", "predictable"), [(8, [1, 1, 1, 1]), (7, [1, 1, 1, 1]), (9, [1, 1, 1, 1, 1])])
def test_targets_leave_out_the_frame_that_is_paired_with_itself(frames, predictable):
    """By the paper's letter they do not."""
    batch = tiny.batch(2, clip_shape=(frames, 16, 16, 3))
    for self_paired in (False, True):
        method = tiny.hcml(levels=("reconstruction", "contrastive"), self_paired=self_paired, positions=16)
        variables = jax.jit(method.init)(jax.random.key(0), batch)
        lower = np.asarray(method.encode(variables, batch.clip[:, 0]).maps["level0"], np.float64)
        used = lower if self_paired else lower[:, :-1]
        future = side_of(method, variables, batch).futures["level1"]
        time = future.targets.shape[1]
        assert future.predictable.tolist() == [bool(p) for p in predictable]
        # Of all positions, whatever their order, the mean is that of the grid.
        edges = np.arange(time + 1) * frames / time
        cells = itertools.pairwise(edges)
        overlap = [[max(0, min(t + 1, b) - max(t, a)) for t in range(used.shape[1])] for a, b in cells]
        expected = np.einsum("st,btc->bsc", overlap, used.mean((2, 3))) / np.sum(overlap, 1)[None, :, None]
        np.testing.assert_allclose(future.targets.mean(2), expected, atol=1e-5)


def test_a_last_target_of_that_frame_alone_is_none():
    """Where levels do not stride, the last target would be that frame and nothing else."""
    backbone = tiny.BACKBONE | {"temporal_strides": (1, 1, 1, 1)}
    found = {}
    for self_paired in (False, True):
        method = tiny.hcml(backbone=backbone, self_paired=self_paired, prediction_steps=99)
        variables = tiny.init(method)
        found[self_paired] = side_of(method, variables, tiny.batch()).futures["level1"]
        loss = jax.jit(functools.partial(method.loss, stage=method.stages[1], train=True))
        outputs = loss(variables, tiny.batch(), jax.random.key(0))[1]
        chance = outputs.metrics["contrastive/level1/right_time_chance"]
        assert chance == pytest.approx(1 / (8 if self_paired else 7))
    assert found[True].predictable.all() and len(found[True].predictions) == 7
    assert found[False].predictable.tolist() == [True] * 7 + [False] and len(found[False].predictions) == 6


def test_clips_too_short_to_predict_anything_are_refused():
    with pytest.raises(ValueError, match="level2 has 1 frame, of which none but the first"):
        jax.eval_shape(tiny.hcml().init, jax.random.key(0), tiny.batch(clip_shape=(4, 16, 16, 3)))


def test_positions_follow_the_flow_where_asked():
    """With a flow head whose flow is not 0 in one corner alone, that corner is drawn."""
    method = tiny.hcml(levels=("reconstruction", "contrastive"), motion_share=1.0, positions=4)
    variables = tiny.init(method)
    features = jax.jit(method.encode)(variables, tiny.batch().clip[:, 0]).maps
    features = {name: jnp.asarray(maps) for name, maps in features.items()}
    marked = jnp.zeros_like(features["level0"]).at[:, :, :4, 4:].set(1.0)  # a quarter of level 0: of level 1, too
    head = {name: jax.tree.map(jnp.zeros_like, layer) for name, layer in variables["params"]["heads"]["level0"].items()}
    head["flow"]["kernel"] = head["flow"]["kernel"].at[1, 1, : marked.shape[-1]].set(1.0)
    params = {"params": {**variables["params"]["heads"], "level0": head}}
    side = method.network.heads.apply(
        params, features | {"level0": marked}, False, rngs={"positions": jax.random.key(0)}
    )
    np.testing.assert_array_equal(side.futures["level1"].targets, 1.0)
    with pytest.raises(ConfigError, match="levels must begin with 'reconstruction'"):
        tiny.hcml(levels=("action", "contrastive"), motion_share=0.5)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_the_loss_in_time_is_a_share_of_the_contrast(method, variables, share):
    """Beside it: what is lost by copies of the present, and by the level's mean motion."""
    batch, key = tiny.batch(), jax.random.key(0)
    method = tiny.hcml(temporal_weight=share, centre_targets=True)
    _, outputs = jax.jit(functools.partial(method.loss, stage=method.stages[1], train=False))(variables, batch, key)
    rngs = streams(key, "dropout", "positions")
    clip = method.normalise(batch.clip[:, 0].astype(np.float32) / 255)
    future = method.network.apply(variables, clip, False, rngs=rngs, method=method.forward)[1].futures["level1"]
    targets = future.targets - future.targets.mean((0, 1, 2))
    candidates = jnp.ones(targets[..., 0].size, bool)

    def expected(predictions):
        over_all = info_nce(*pair_predictions(predictions, targets), temperature=0.07)
        in_time = info_nce_in_time(predictions, targets, candidates, temperature=0.07).losses
        return (1 - share) * over_all.mean() + share * in_time.mean()

    level = "contrastive/level1"
    copies = jnp.broadcast_to(targets, future.predictions.shape)
    for name, predictions in ((level, future.predictions), (f"{level}/copying", copies)):
        np.testing.assert_allclose(outputs.metrics[name], expected(predictions), rtol=1e-4)
    np.testing.assert_allclose(outputs.metrics[f"{level}/without_motion"], expected(future.blind), rtol=1e-4)
    assert not np.allclose(future.blind, future.predictions)


def test_blind_predictions_are_of_the_mean_motion():
    method = tiny.hcml(levels=("reconstruction", "contrastive"), positions=16)
    variables = tiny.init(method)
    features = jax.jit(method.encode)(variables, tiny.batch().clip[:, 0]).maps
    features = {name: jnp.asarray(maps) for name, maps in features.items()}
    heads, rngs = {"params": variables["params"]["heads"]}, {"positions": jax.random.key(0)}
    blind = method.network.heads.apply(heads, features, False, rngs=rngs).futures["level1"].blind
    mean = jnp.broadcast_to(features["level1"].mean((0, 1, 2, 3)), features["level1"].shape)
    of_mean = method.network.heads.apply(heads, features | {"level1": mean}, False, rngs=rngs).futures["level1"]
    np.testing.assert_allclose(blind, of_mean.predictions, atol=1e-5)


def gradient_of_contrast(method, variables):
    stage = method.stages[-1]
    name = "contrastive/level1"
    stage = dataclasses.replace(stage, terms={name: stage.terms[name]})

    def loss(params):
        given = {**variables, "params": params}
        return method.loss(given, tiny.batch(), jax.random.key(0), stage, train=True)[0]

    return jax.jit(jax.grad(loss))(variables["params"])


def test_targets_pass_gradients_only_where_asked(method, variables):
    stopped = gradient_of_contrast(method, variables)
    flowing = gradient_of_contrast(tiny.hcml(target_gradients=True), variables)
    name = "backbone/level0/join/conv/kernel"
    assert not np.allclose(leaves(stopped)[name], leaves(flowing)[name])


def test_reconstruction_compares_the_frames_that_the_level_keeps():
    """Level 1 strides by two; of seven frames it keeps 0, 2, 4 and 6. A quadratic penalty has a closed form."""
    method = tiny.hcml(levels=("reconstruction",) * 2, charbonnier_alpha=1.0, charbonnier_epsilon=0.0, joint=False)
    batch = tiny.batch(clip_shape=(7, 16, 16, 3))
    variables = jax.jit(method.init)(jax.random.key(0), batch)
    flow_head = variables["params"]["heads"]["level1"]["flow"]
    flow_head["kernel"] = jnp.zeros_like(flow_head["kernel"])  # no flow: the warp does nothing
    loss = jax.jit(functools.partial(method.loss, stage=method.stages[1], train=True))
    _, outputs = loss(variables, batch, jax.random.key(0))
    clip = batch.clip[:, 0, ::2].astype(np.float64) / 255
    expected = np.square(clip[:, 1:] - clip[:, :-1]).mean()
    metrics = outputs.metrics
    np.testing.assert_allclose(metrics["reconstruction/level1/photometric"], expected, rtol=1e-5)
    assert metrics["reconstruction/level1/smoothness"] == 0


def test_loss_is_the_same_for_uint8_and_float_clips(method, variables):
    batch = tiny.batch()
    floats = batch._replace(clip=batch.clip.astype(np.float32) / 255)
    losses = [
        jax.jit(lambda v, b: method.loss(v, b, jax.random.key(0), method.stages[0], train=True)[0])(variables, b)
        for b in (batch, floats)
    ]
    np.testing.assert_allclose(*losses, rtol=1e-6)


def test_simultaneous_training_is_one_stage_of_all_levels():
    method = tiny.hcml(progressive=False)
    assert [stage.name for stage in method.stages] == ["levels", "joint"]
    assert set(method.stages[0].terms) == {"reconstruction/level0", "contrastive/level1", "contrastive/level2"}
    variables = tiny.init(method)
    state, _ = run_stage(method, method.stages[0], variables)
    changed = moved(variables["params"], state.variables["params"])
    modules = {"/".join(name.split("/")[:2]) for name in changed}
    assert modules == set.union(*LEVEL_MODULES) - {"backbone/level0/expand", "backbone/level1/expand"}
    assert not any(name.startswith("backbone/level2/expand") for name in changed)


@pytest.mark.parametrize(
    "levels",
    [
        ("reconstruction",),
        ("reconstruction", "contrastive"),
        ("reconstruction", "reconstruction", "reconstruction"),
        ("action", "action", "action"),
        ("action", "contrastive", "reconstruction"),
    ],
)
def test_any_prefix_of_levels_takes_any_supervision(levels):
    method = tiny.hcml(levels=levels)
    key, batch = jax.random.key(0), tiny.batch()
    variables = jax.eval_shape(method.init, key, batch)
    for stage, supervision in zip(method.stages, levels, strict=False):
        loss = functools.partial(method.loss, stage=stage, train=True)
        value, outputs = jax.eval_shape(loss, variables, batch, key)
        assert value.shape == ()
        assert f"{supervision}/{stage.name}" in outputs.metrics
    encoded = jax.eval_shape(method.encode, variables, batch.clip[:, 0])
    assert sorted(encoded.features) == sorted(["backbone", *(f"level{level}" for level in range(len(levels)))])


def test_losses_of_mixed_supervisions_are_finite():
    method = tiny.hcml(levels=("action", "contrastive", "reconstruction"), progressive=False)
    loss = jax.jit(functools.partial(method.loss, stage=method.stages[0], train=True))
    _, outputs = loss(tiny.init(method), tiny.batch(), jax.random.key(0))
    terms = {"action/level0", "contrastive/level1", "reconstruction/level2"}
    assert outputs.metrics.keys() >= terms
    assert all(np.isfinite(outputs.metrics[term]) for term in terms)


def test_frames_of_levels_are_those_that_the_backbone_names():
    slowfast = tiny.hcml(backbone={"name": "slowfast_r50_8x8"}).frames_of(32)
    for level in ("level0", "level1", "level2"):
        assert slowfast[level].tolist() == [0, 4, 8, 13, 17, 22, 26, 31]
    found = tiny.hcml().frames_of(7)
    assert [frames.tolist() for frames in found.values()] == [[*range(7)], [0, 2, 4, 6], [0, 4]]


def test_flow_is_in_pixels_of_the_clip(method, variables):
    """A head whose last layer is a bias of (1, 2) cells gives flow of (2, 4) pixels at twice the size."""
    params = jax.tree.map(jnp.copy, variables["params"])
    last = params["heads"]["level0"]["flow"]
    params["heads"]["level0"]["flow"] = {"kernel": jnp.zeros_like(last["kernel"]), "bias": jnp.array([1.0, 2.0])}
    flow = method.encode({**variables, "params": params}, tiny.batch().clip[:, 0]).flow["level0"]
    assert flow.shape == (4, 7, 16, 16, 2)
    np.testing.assert_allclose(flow, np.broadcast_to([2.0, 4.0], flow.shape), rtol=1e-6)


def test_without_labels_there_is_no_joint_stage():
    assert [s.name for s in tiny.hcml(num_classes=0).stages] == ["level0", "level1", "level2"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"levels": ("contrastive",)}, "level 0 has no level below"),
        ({"levels": ("reconstrution",)}, "Did you mean 'reconstruction'"),
        ({"smoothness": 0.1}, "config.method.smoothness is not a field.*'smoothness_weight'"),
        ({"temporal_weight": 1.5}, "temporal_weight must be between 0 and 1, not 1.5"),
        ({"motion_share": -0.5}, "motion_share must be between 0 and 1, not -0.5"),
        ({"positions": "4"}, "config.method.positions must be int, not str"),
        ({"stages": {"level0": tiny.schedule()}}, "stages must be"),
        ({"stages": {}}, "stages must be"),
        ({"levels": ()}, "levels must name 1 to 3"),
        ({"backbone": {"name": "r2d_51"}}, "config.method.backbone.*Did you mean 'r2d_50'"),
    ],
)
def test_wrong_fields_are_refused_by_name(fields, message):
    config = tiny.hcml_config() | fields
    with pytest.raises(ConfigError, match=message):
        build_method(config, 3)


def test_action_supervision_needs_labels():
    with pytest.raises(ConfigError, match="'action' needs a table with labels"):
        tiny.hcml(num_classes=0, levels=("action",), joint=False)
