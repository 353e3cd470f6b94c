"""MSCL: its losses against loops, what a step moves, and that nothing tells a key but its clip."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hcml_jax import augment
from hcml_jax.config import ConfigError
from hcml_jax.methods import build_method, mscl
from hcml_jax.methods.momentum import rising
from hcml_jax.models import TrainMode
from hcml_jax.ops import flow_to_image, rotate_flow
from hcml_jax.rng import stream
from tests.methods import tiny
from tests.methods.stages import begin, leaves, loss_of, unit
from tests.training import memory
from tests.training.test_loop import final_variables

CONFIG = {
    "name": "mscl",
    "backbone": {**tiny.BACKBONE, "motion": {}},
    "flow_backbone": {"name": "resnet_10", "width": 4, "stem_pool": False},
    "channels": 6,
    "queue": 8,
    "momentum": 0.5,
    "temperature": 0.5,
    "batch_norm_group": 2,
    "stages": {"contrast": tiny.schedule(4)},
}
KEY_MODULES = {"rgb": ("backbone", "projection"), "flow": ("flow_backbone", "flow_projection")}
ALONE = dict.fromkeys(("rgb_weight", "flow_weight", "cross_weight", "local_weight"), 0.0)


def built(**fields):
    return build_method(CONFIG | fields, 0)


def a_batch(method, seed=0, clips=4):
    return tiny.batch(clips, seed, reads=method.stages[0].reads)


@pytest.fixture(scope="module")
def method():
    return built()


@pytest.fixture(scope="module")
def batch(method):
    return a_batch(method)


@pytest.fixture(scope="module")
def variables(method):
    return begin(method, a_batch(method))


@pytest.fixture(scope="module")
def step(method):
    return loss_of(method, train=True)


def nce(query, candidates, tau=0.5):
    """-log softmax at the first candidate, of cosines."""
    scores = np.exp(unit(np.stack(candidates)) @ unit(query) / tau)
    return -np.log(scores[0] / scores.sum())


STILL = {"flip": False, "photometric": {"jitter": 0.0, "grayscale": 0.0, "blur": 0.0}, "batch_norm_group": 1}


def encoded(method, variables, batch, key, view=0, mode=False):
    """Of both views: what the network makes of frames and flow that are not augmented; and of rotated flow of one."""
    given = {name: variables[name] for name in ("params", "batch_stats")}

    def apply(name, inputs):
        return method.network.apply(given, inputs, mode, True, method=name, mutable=["batch_stats"])[0]

    def images(flow):
        return augment.normalise(flow_to_image(flow), (0.45,) * 3, (0.225,) * 3)

    clips = [augment.normalise(batch.clip[:, v] / np.float32(255), *method.normalisation) for v in (0, 1)]
    angle = jax.random.uniform(stream(key, "rotation"), (4, 1), minval=np.pi / 3, maxval=5 * np.pi / 3)
    rotated = apply("flow", images(rotate_flow(batch.flow[:, view], angle)))
    rgb = [apply("frames", clip) for clip in clips]
    return rgb, [apply("flow", images(batch.flow[:, v])) for v in (0, 1)], rotated


def local_losses(rgb, flow, rotated, valid):
    """Eq. 6 at the valid ones of frames 0, 2, 4 and 6 of each clip."""
    losses = []
    for b, times in enumerate(valid):
        for i in np.flatnonzero(times):
            others = [flow.times[b, 2 * j] for j in np.flatnonzero(times) if j != i]
            others += [rotated.times[b, 2 * j] for j in np.flatnonzero(times)]
            losses.append(nce(rgb.times[b, i], [flow.times[b, 2 * i], *others]))
    return losses


@pytest.mark.parametrize("train", [True, False])
def test_terms_are_those_of_the_equations(variables, batch, train):
    """Negatives are the queue's; in validation, the other clips of the batch."""
    key, method = jax.random.key(7), built(**STILL)
    loss, outputs = loss_of(method, train=train)(variables, batch, key)
    assert train or outputs.collections == {}
    mode = TrainMode(batch_norm_group=1) if train else False
    rgb, flow, rotated = encoded(method, variables, batch, key, mode=mode)
    keys = {"rgb": rgb[1].clip, "flow": flow[1].clip}
    queries = {"rgb": rgb[0].clip, "flow": flow[0].clip}

    def contrast(query, key):
        negatives = [variables["queue"][key]] * 4 if train else [np.delete(keys[key], b, axis=0) for b in range(4)]
        triples = zip(queries[query], keys[key], negatives, strict=True)
        return np.mean([nce(q, [k, *others]) for q, k, others in triples])

    assert rgb[0].times.shape == (4, 4, 6) and flow[0].times.shape == (4, 8, 6)
    expected = {
        "rgb": contrast("rgb", "rgb"),
        "flow": contrast("flow", "flow"),
        "cross": contrast("rgb", "flow") + contrast("flow", "rgb"),
        "local": np.mean(local_losses(rgb[0], flow[0], rotated, np.ones((4, 4), bool))),
    }
    for name, value in expected.items():
        np.testing.assert_allclose(outputs.metrics[name], value, rtol=2e-4, err_msg=name)
    np.testing.assert_allclose(loss, sum(expected.values()), rtol=2e-4)
    assert outputs.metrics["local/chance"] == 1 / 8
    for name in ("rgb", "flow", "cross"):
        np.testing.assert_allclose(outputs.metrics[f"{name}/chance"], 1 / 9 if train else 1 / 4)


def test_a_step_moves_averages_statistics_and_queues(method, variables, batch, step):
    ahead = {**variables, "params": jax.tree.map(lambda p: p + 1, variables["params"])}
    _, outputs = step(ahead, batch, jax.random.key(0))
    moved = outputs.collections
    assert set(moved) == {"batch_stats", "key_encoder", "queue"}
    before, after = (leaves(v["key_encoder"]["params"]) for v in (variables, moved))
    assert before.keys() == after.keys() and not any("local" in name for name in before)
    for name, old in before.items():
        np.testing.assert_allclose(after[name], old + 0.5, atol=1e-6)
    for where in ("batch_stats", "key_encoder"):
        old, new = (leaves(v[where] if where == "batch_stats" else v[where]["batch_stats"]) for v in (variables, moved))
        assert old.keys() == new.keys() and all(np.any(old[name] != new[name]) for name in old), where
    for name in ("rgb", "flow"):
        np.testing.assert_array_equal(moved["queue"][name][4:], variables["queue"][name][4:])
        assert not np.any(np.asarray(moved["queue"][name][:4]) == variables["queue"][name][:4])
    assert (moved["queue"]["next"], moved["queue"]["batches"]) == (4, 1)


def test_keys_are_enqueued_in_the_order_of_the_batch(method, variables, batch):
    """Clips in another order give the same keys in that order; without augmentation and shuffled statistics alike."""
    step = loss_of(built(**STILL), train=True)
    order = np.array([2, 0, 3, 1])
    other = jax.tree.map(lambda x: x[order], batch)
    one, two = (step(variables, b, jax.random.key(0))[1].collections["queue"] for b in (batch, other))
    for name in ("rgb", "flow"):
        np.testing.assert_allclose(two[name][:4], one[name][:4][order], rtol=1e-4, atol=1e-5)


def test_a_run_that_was_interrupted_goes_on_to_the_same_bits(method, tmp_path):
    memory.run(tmp_path / "whole", method)
    with pytest.raises(KeyboardInterrupt):
        memory.run(tmp_path / "cut", method, memory.Memory(stop_after=3))
    memory.run(tmp_path / "cut", method)
    found, expected = (final_variables(tmp_path / name, method) for name in ("cut", "whole"))
    assert set(found) == {"params", "batch_stats", "key_encoder", "queue"}
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_views_flip_frames_and_flow_alike_and_change_frames_alone(method, batch):
    key = jax.random.key(3)
    given = method._view(batch, 0)
    clip, flow = jax.jit(lambda given: method._views(given, key, True))(given)
    flipped = augment.draw_flip(stream(key, "flip"), 4)
    assert 0 < flipped.sum() < 4
    np.testing.assert_array_equal(flow, augment.flip_flow(jnp.asarray(given["flow"]), flipped))
    config = method.config.photometric
    drawn = augment.draw_photometric(stream(key, "photometric"), 4, config)
    expected = augment.change_photometry(augment.flip(augment.to_float(given["clip"]), flipped), drawn, config)
    np.testing.assert_allclose(clip, augment.normalise(expected, *method.normalisation), atol=1e-4)
    still, same = method._views(given, key, False)
    np.testing.assert_allclose(
        still, augment.normalise(given["clip"] / np.float32(255), *method.normalisation), atol=1e-5
    )
    assert same is given["flow"]


def test_queues_hold_the_keys_of_followed_encoders_in_order():
    """After several steps, against a list."""
    still = built(flip=False, photometric={"jitter": 0.0, "grayscale": 0.0, "blur": 0.0}, batch_norm_group=1)
    variables, step = begin(still, a_batch(still)), loss_of(still, train=True)
    expected = {name: [*np.asarray(variables["queue"][name])] for name in ("rgb", "flow")}
    average = variables["key_encoder"]["params"]
    for number in range(3):
        given = a_batch(still, seed=number)
        params = jax.tree.map(lambda p: p * 1.1, variables["params"])
        average = jax.tree.map(lambda mean, new: 0.5 * mean + 0.5 * new, average, {n: params[n] for n in average})
        _, outputs = step({**variables, "params": params}, given, jax.random.key(number))
        encoder = {"params": average, "batch_stats": variables["key_encoder"]["batch_stats"]}
        mode = TrainMode(batch_norm_group=1)
        clip, flow = still._views(still._view(given, 1), jax.random.key(0), False)
        for modality, name, inputs in (("rgb", "frames", clip), ("flow", "flow", still._images(flow))):
            found, _ = still.network.apply(encoder, inputs, mode, method=name, mutable=["batch_stats"])
            expected[modality] = [*expected[modality][4:], *np.asarray(found.clip)]
        variables = {**variables, **outputs.collections, "params": params}
        assert variables["queue"]["next"] == 4 * (number + 1) % 8
    for name, rows in expected.items():
        held = np.roll(variables["queue"][name], -int(variables["queue"]["next"]), axis=0)
        np.testing.assert_allclose(held, rows, rtol=1e-3, atol=1e-4)


def test_times_whose_flow_leads_nowhere_are_not_compared(method, variables, batch):
    loss = loss_of(method, train=False)
    broken = batch._replace(consecutive=batch.consecutive.copy(), flow=batch.flow.copy())
    broken.consecutive[1, 0, 4] = broken.consecutive[2, 0] = False
    expected = loss(variables, broken, jax.random.key(0))[1].metrics
    broken.flow[1, 0, 4] += 5.0  # what stands there does not matter
    broken.flow[2, 0] = 0.0
    found = loss(variables, broken, jax.random.key(0))[1].metrics
    np.testing.assert_allclose(found["local"], expected["local"], rtol=1e-5)
    rgb, flow, rotated = encoded(method, variables, batch, jax.random.key(0))
    losses = local_losses(rgb[0], flow[0], rotated, broken.consecutive[:, 0, ::2])
    np.testing.assert_allclose(found["local"], np.mean(losses), rtol=2e-4)
    np.testing.assert_allclose(found["local/chance"], (4 / 8 + 3 / 6 + 4 / 8) / 11, rtol=1e-6)


@pytest.mark.parametrize("shuffles", [True, False])
def test_batch_statistics_do_not_tell_a_key(monkeypatch, shuffles):
    """Half of the clips are black: nothing tells their keys but the statistics of the group that they are in."""
    if not shuffles:
        monkeypatch.setattr(mscl, "shuffled", lambda key, number: (lambda tree: tree, lambda tree: tree))
    one = built(
        **ALONE | {"rgb_weight": 1.0}, queue=64, flip=False, photometric={"jitter": 0.0, "grayscale": 0.0, "blur": 0.0}
    )
    variables, step = begin(one, a_batch(one)), loss_of(one, train=True)
    for number in range(9):  # the queue is full before the last
        given = a_batch(one, seed=number, clips=16)
        clip = np.array(given.clip)
        clip[:, 1] = clip[:, 0]
        clip[::2] = 0
        _, outputs = step(variables, given._replace(clip=clip), jax.random.key(number))
        variables = {**variables, "queue": outputs.collections["queue"]}
    top1 = float(outputs.metrics["rgb/top1"])
    assert top1 < 0.6 if shuffles else top1 == 1.0


def test_no_key_of_the_batch_is_a_negative(method, variables, batch):
    only = built(**ALONE | STILL | {"rgb_weight": 1.0})
    loss = loss_of(only, train=True)
    alike = batch._replace(clip=np.broadcast_to(batch.clip[:1], batch.clip.shape))
    found = loss(variables, alike, jax.random.key(0))[1].metrics
    given = {name: variables[name] for name in ("params", "batch_stats")}
    clip = augment.normalise(alike.clip[:, 0] / np.float32(255), *method.normalisation)
    mode = {"method": "frames", "mutable": ["batch_stats"]}
    query = method.network.apply(given, clip, TrainMode(batch_norm_group=1), **mode)[0].clip[0]
    clip = augment.normalise(alike.clip[:, 1] / np.float32(255), *method.normalisation)
    key = method.network.apply(given, clip, TrainMode(batch_norm_group=1), **mode)[0].clip[0]
    np.testing.assert_allclose(found["rgb"], nce(query, [key, *variables["queue"]["rgb"]]), rtol=1e-4)


def test_gradients_reach_everything_but_the_keys(method, variables, batch):
    def loss(params, encoder):
        given = {**variables, "params": params, "key_encoder": {**variables["key_encoder"], "params": encoder}}
        return method.loss(given, batch, jax.random.key(0), method.stages[0], train=True)[0]

    of_params, of_keys = jax.jit(jax.grad(loss, argnums=(0, 1)))(
        variables["params"], variables["key_encoder"]["params"]
    )
    assert all(np.all(g == 0) for g in leaves(of_keys).values())
    still = [name for name, g in leaves(of_params).items() if not np.any(g)]
    assert not still


@pytest.mark.parametrize(
    ("weights", "modules", "keys"),
    [
        ({"rgb_weight": 1.0}, {"backbone", "projection"}, ["rgb"]),
        ({"flow_weight": 1.0}, {"backbone", "projection", "flow_backbone", "flow_projection"}, ["flow"]),
        ({"cross_weight": 1.0}, {"backbone", "projection", "flow_backbone", "flow_projection"}, ["rgb", "flow"]),
        (
            {"local_weight": 1.0},
            {"backbone", "projection", "flow_backbone", "flow_projection", "local", "flow_local"},
            [],
        ),
    ],
)
def test_what_no_term_needs_is_not_there(weights, modules, keys):
    one = built(**ALONE | weights)
    reads = one.stages[0].reads
    assert reads.flow == (weights != {"rgb_weight": 1.0}) and reads.clips == 2
    shapes = jax.eval_shape(one.init, jax.random.key(0), a_batch(one))
    assert set(shapes["params"]) == modules
    assert set(shapes["queue"]) == {"next", "batches", *keys}
    derived = jax.eval_shape(one.derive, shapes)["key_encoder"]["params"]
    assert set(derived) == {name for key in keys for name in KEY_MODULES[key]}
    loss_of(one, train=True).lower(jax.eval_shape(one.derive, shapes), a_batch(one), jax.random.key(0))
    assert [*one.stages[0].terms] == [name.removesuffix("_weight") for name in weights]


def test_old_keys_may_count_less(variables, batch):
    weighted, method = built(age_weight=0.1), built()
    given = {**variables, "queue": {**variables["queue"], "next": jnp.int32(4)}}
    metrics = loss_of(weighted, train=True)(given, batch, jax.random.key(0))[1].metrics
    plain = loss_of(method, train=True)(given, batch, jax.random.key(0))[1].metrics
    assert metrics["rgb"] < plain["rgb"] and metrics["local"] == plain["local"]


def test_without_rotation_other_times_are_the_only_negatives(variables, batch):
    metrics = loss_of(built(rotation=None), train=False)(variables, batch, jax.random.key(0))[1].metrics
    assert metrics["local/chance"] == 1 / 4


def test_one_local_stage_has_a_layer_in_place_of_the_pyramid():
    one = built(local_stages=("res3",))
    local = jax.eval_shape(one.init, jax.random.key(0), a_batch(one))["params"]["local"]
    assert {name: set(tree) for name, tree in local.items()} == {"projection": {"hidden", "out"}}


def test_motion_blocks_may_stand_in_the_backbone_of_frames():
    one = built(motion_blocks=("res2",), **ALONE | {"rgb_weight": 1.0})
    shapes = jax.eval_shape(one.init, jax.random.key(0), a_batch(one))
    assert "level0" in shapes["params"]["backbone"]
    assert jax.eval_shape(one.encode, shapes, a_batch(one).clip[:, 0]).features["backbone"].shape == (4, 64)


def test_in_bfloat16_parameters_queues_and_losses_stay_float32(batch):
    one = built(dtype="bfloat16")
    shapes = jax.eval_shape(lambda key: one.derive(one.init(key, batch)), jax.random.key(0))
    loss, outputs = jax.eval_shape(
        functools.partial(one.loss, stage=one.stages[0], train=True), shapes, batch, jax.random.key(0)
    )
    assert {x.dtype for x in jax.tree.leaves((shapes, loss, outputs))} == {jnp.dtype("float32"), jnp.dtype("int32")}


def test_similarities_are_cosines_of_frames_with_flow_at_their_times(method, variables, batch):
    found = jax.jit(method.similarities)(variables, batch)
    assert list(found) == ["frames x flow", "frames x flow turned by 180 degrees"]
    given = {name: variables[name] for name in ("params", "batch_stats")}
    clip = augment.normalise(batch.clip[:, 0] / np.float32(255), *method.normalisation)
    rgb = unit(method.network.apply(given, clip, False, True, method="frames").times)
    for flow, cosines in zip((batch.flow[:, 0], -batch.flow[:, 0]), found.values(), strict=True):
        images = augment.normalise(flow_to_image(flow), (0.45,) * 3, (0.225,) * 3)
        times = unit(method.network.apply(given, images, False, True, method="flow").times)
        np.testing.assert_allclose(cosines, np.einsum("bic,bjc->bij", rgb, times[:, ::2]), atol=1e-4)
    exported = {name: {"backbone": tree["backbone"]} for name, tree in given.items()}
    assert method.similarities(exported, batch) == {}


def test_the_backbone_alone_encodes(method, variables):
    exported = {name: {"backbone": variables[name]["backbone"]} for name in ("params", "batch_stats")}
    clips = tiny.batch().clip[:, 0]
    encode = jax.jit(method.encode)
    found = encode(exported, clips)
    assert set(found.features) == {"backbone"} and found.last.shape[:2] == (4, 2)
    np.testing.assert_array_equal(
        found.features["backbone"], jax.jit(method.encode)(variables, clips).features["backbone"]
    )


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"stages": {"joint": tiny.schedule()}}, "stages must be exactly 'contrast'"),
        (ALONE, "one of them above 0"),
        ({"local_stages": ("res6",)}, "no stage is called 'res6'. Did you mean"),
        ({"local_stages": ("res4", "res3")}, "in the order of the backbone's"),
        ({"local_stages": ()}, "local_weight: single times"),
        ({"motion_blocks": ("res9",)}, "motion_blocks: no stage is called 'res9'"),
        ({"flow_backbone": tiny.BACKBONE | {"motion": {}}}, "no stride in time"),
        ({"temperature": 0.0}, "temperature must be above 0"),
        ({"rotation": (60.0, 300.0)}, "rotation must be .least, most. in radians"),
        ({"rotation": (5.0, 1.0)}, "rotation must be"),
        ({"rotation": (5.0, 1.0), "local_weight": 0.0}, "rotation must be"),
        ({"rotation_steps": 8, "rotation": None}, "rotation_steps needs rotation"),
        ({"rotation_steps": -1}, "rotation_steps must be 0 or more, not -1"),
        (
            {"rotated_weight": 1.0, "rotation": None},
            "rotated_weight needs rotation, and flow_weight or cross_weight above 0",
        ),
        ({"rotated_weight": 1.0, "flow_weight": 0.0, "cross_weight": 0.0}, "rotated_weight needs rotation, and"),
        ({"momentum": 1.5}, "momentum must be above 0 and at most 1"),
        ({"area": (0.0, 1.0)}, "area, max_offset: area and aspect"),
        ({"photometric": {"blur": 2.0}}, "blur must be between 0 and 1"),
    ],
)
def test_fields_that_do_not_fit_are_refused(fields, message):
    with pytest.raises(ConfigError, match=message):
        built(**fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"queue": 6}, "queue: 6 keys are no multiple of a batch of 4"),
        ({"batch_norm_group": 4}, "batch_norm_group: 4 clips are the whole batch of 4"),
    ],
)
def test_a_batch_that_does_not_fit_is_refused(fields, message):
    one = built(**fields)
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(
            functools.partial(one.loss, stage=one.stages[0], train=True),
            jax.eval_shape(lambda key: one.derive(one.init(key, a_batch(one))), jax.random.key(0)),
            a_batch(one),
            jax.random.key(0),
        )


def test_angles_are_drawn_once_a_clip_within_their_range(method):
    angle = np.asarray(method._angles(jax.random.key(0), 64))
    assert angle.shape == (64,) and len(np.unique(angle)) == 64
    assert np.pi / 3 < angle.min() < np.pi / 3 + 0.3 and 5 * np.pi / 3 - 0.3 < angle.max() < 5 * np.pi / 3


def test_angles_may_be_a_few():
    """The released code's: from 0.2 pi in steps of 0.2 pi to 1.6 pi."""
    one = built(rotation=(0.2 * np.pi, 1.8 * np.pi), rotation_steps=8)
    found = np.unique(np.round(np.asarray(one._angles(jax.random.key(0), 256)) / np.pi, 4))
    np.testing.assert_allclose(found, np.arange(1, 9) / 5, atol=1e-4)


def test_rotated_flow_may_have_losses_of_its_own(variables, batch):
    """Of both views turned by one angle, among the same queues, which take none of its keys."""
    key, one = jax.random.key(7), built(rotated_weight=0.5, **STILL)
    loss, outputs = loss_of(one, train=True)(variables, batch, key)
    mode = TrainMode(batch_norm_group=1)
    rgb, _, rotated = encoded(one, variables, batch, key, mode=mode)
    turned = [rotated.clip, encoded(one, variables, batch, key, view=1, mode=mode)[2].clip]

    def contrast(queries, keys, queue):
        pairs = zip(queries, keys, strict=True)
        return np.mean([nce(q, [k, *variables["queue"][queue]]) for q, k in pairs])

    within = contrast(*turned, "flow")
    across = contrast(rgb[0].clip, turned[1], "flow") + contrast(turned[0], rgb[1].clip, "rgb")
    np.testing.assert_allclose(outputs.metrics["rotated"], within + across, rtol=2e-4)
    names = ("rgb", "flow", "cross", "local")
    total = sum(outputs.metrics[name] for name in names) + 0.5 * (within + across)
    np.testing.assert_allclose(loss, total, rtol=2e-4)
    assert set(outputs.collections["queue"]) == {"rgb", "flow", "next", "batches"}


def test_clips_of_one_video_are_no_negatives_of_each_other(method, variables, batch):
    """As where a small validation split fills up its batch."""
    loss, keep = loss_of(method, train=False), np.array([0, 1, 2, 0])
    twice = jax.tree.map(lambda x: x[keep], batch)
    found = loss(variables, twice, jax.random.key(0))[1].metrics["rgb"]
    clips = [encoded(method, variables, twice, jax.random.key(0))[0][view].clip for view in (0, 1)]
    others = [[1, 2], [0, 2, 3], [0, 1, 3], [1, 2]]
    clips = [np.asarray(one) for one in clips]
    expected = [nce(clips[0][b], [clips[1][b], *clips[1][rows]]) for b, rows in enumerate(others)]
    np.testing.assert_allclose(found, np.mean(expected), rtol=2e-4)


def test_momentum_may_rise_by_a_cosine(variables, batch):
    one = built(momentum=0.6, momentum_steps=4)
    ahead = {**variables, "params": jax.tree.map(lambda p: p + 1, variables["params"])}
    step = loss_of(one, train=True)
    for number, expected in enumerate((0.4, 0.4 * (1 + np.cos(np.pi / 4)) / 2, 0.2)):
        given = {**ahead, "queue": {**variables["queue"], "batches": jnp.int32(number)}}
        moved = step(given, batch, jax.random.key(0))[1].collections["key_encoder"]["params"]
        for name, old in leaves(variables["key_encoder"]["params"]).items():
            np.testing.assert_allclose(leaves(moved)[name], old + expected, atol=1e-5)
    assert float(rising(0.6, jnp.int32(9), 4)) == 1.0
