"""CGM-Net: its losses against loops, what a stage moves, what it gives of clips, and what is refused."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hcml_jax
from data_pipelines import DataConfig, open_data
from hcml_jax import augment
from hcml_jax.batch import Reads
from hcml_jax.config import ConfigError, build
from hcml_jax.experiment import complete, run
from hcml_jax.methods import build_method
from hcml_jax.methods.cgm_net import _flow
from hcml_jax.models import MotionMaps, Moved
from hcml_jax.models.layers import TrainMode
from tests import tiny_config
from tests.methods import tiny
from tests.methods.stages import begin, leaves, loss_of, moved
from tests.models.test_motion_map_network import SIZES
from tests.ops.test_motion_maps import by_hand
from tests.training import memory
from tests.training.test_loop import final_variables

CONFIG = {
    "name": "cgm_net",
    "backbone": {**tiny.BACKBONE, "motion": {}, "temporal_strides": (1, 2, 1, 1), "spatial_strides": (1, 2, 2, 1)},
    "context": {"name": "resnet_10", "width": 4, "stem_pool": False},
    "maps": SIZES | {"scale": 2, "decoder_widths": (6, 5)},
    "stages": {"motion": tiny.schedule(4), "joint": tiny.schedule(4)},
}
CLIP_SHAPE, CLIPS = (4, 16, 16, 3), 4


def built(classes=3, **fields):
    return build_method(CONFIG | fields, classes)


def a_batch(method, seed=0, clips=CLIPS):
    return tiny.batch(clips, seed, CLIP_SHAPE, reads=method.stages[0].reads)


@pytest.fixture(scope="module")
def method():
    return built()


@pytest.fixture(scope="module")
def batch(method):
    found = a_batch(method)
    consecutive = found.consecutive.copy()
    consecutive[1, 0, 2] = False  # a short video that begins again
    return found._replace(consecutive=consecutive)


@pytest.fixture(scope="module")
def variables(method, batch):
    """As if they had been trained for a while: fresh maps copy."""
    rng, fresh = np.random.default_rng(0), begin(method, batch)
    params = jax.tree.map(lambda p: p + 0.05 * rng.normal(size=p.shape).astype(p.dtype), fresh["params"])
    return {**fresh, "params": params}


def network_of(method, variables, batch, mode=False):
    clip = augment.normalise(batch.clip[:, 0] / np.float32(255), *method.normalisation)
    return method.network.apply(variables, clip, mode, mutable=["batch_stats"])[0]


@pytest.mark.parametrize("train", [True, False])
def test_terms_are_those_of_the_equations(method, variables, batch, train):
    stage = method.stages[1]
    found = jax.jit(lambda *given: method.loss(*given, jax.random.key(0), stage, train=train))
    loss, outputs = found(variables, batch)
    found = network_of(method, variables, batch, TrainMode() if train else False)
    frames = np.concatenate([batch.clip[:, 0], batch.future[:, 0]], axis=1) / np.float32(255)
    small = frames.reshape(CLIPS, 5, 8, 2, 8, 2, 3).mean((3, 5))
    expected = {}
    for name, images in (("hr", frames), ("lr", small)):
        maps, total = np.asarray(getattr(found, name).maps), 0.0
        for b, t in np.ndindex(CLIPS, 4):
            if batch.consecutive[b, 0, t]:
                difference = 2 * (by_hand(images[b, t], maps[b, t]) - images[b, t + 1])
                total += np.sqrt(difference**2 + 1e-12).mean()
        expected[name] = total / CLIPS
    losses = [
        -np.mean([jax.nn.log_softmax(scores[b])[batch.label[b]] for b in range(CLIPS)])
        for scores in map(np.asarray, found.logits.values())
    ]
    expected["classification"] = np.mean(losses)
    for name, value in expected.items():
        metric = name if name == "classification" else f"reconstruction/{name}"
        np.testing.assert_allclose(outputs.metrics[metric], value, rtol=1e-3, err_msg=name)
    whole = expected["hr"] + expected["lr"] + 10 * expected["classification"]
    np.testing.assert_allclose(loss, whole, rtol=1e-3)


def test_what_is_right_to_the_bit_costs_epsilon(method, batch):
    """Eq. 6: rho of no error is its epsilon, for each of the frames."""
    black = batch._replace(clip=np.zeros_like(batch.clip), future=np.zeros_like(batch.future))
    black = black._replace(consecutive=np.ones_like(batch.consecutive))
    metrics = loss_of(method, train=False)(begin(method, batch), black, jax.random.key(0))[1].metrics
    for name in ("reconstruction/hr", "reconstruction/lr"):
        np.testing.assert_allclose(metrics[name], 4 * 1e-6, rtol=1e-3)


def test_a_batch_without_the_frame_behind_is_refused(method, variables, batch):
    with pytest.raises(ValueError, match="batch.future: the frame behind each clip is predicted"):
        loss_of(method, train=True)(variables, batch._replace(future=None), jax.random.key(0))


def test_records_tell_of_copying(method, variables, batch):
    metrics = loss_of(method, train=False)(variables, batch, jax.random.key(0))[1].metrics
    frames = np.concatenate([batch.clip[:, 0], batch.future[:, 0]], axis=1) / np.float32(255)
    kept = batch.consecutive[:, 0]
    error = ((frames[:, 1:] - frames[:, :-1]) ** 2).mean((2, 3, 4))[kept].mean()
    np.testing.assert_allclose(metrics["reconstruction/hr/psnr_of_copying"], -10 * np.log10(error), rtol=1e-5)
    psnr = {f"reconstruction/{name}/psnr": f"reconstruction/{name}/psnr_of_copying" for name in ("lr", "hr")}
    assert method.stages[0].chances == psnr
    predicted = np.asarray(jax.jit(method.next_frames)(variables, batch.clip[:, 0]))
    l1 = 2 * np.abs(predicted - frames[:, 1:]).mean((2, 3, 4))
    np.testing.assert_allclose(metrics["reconstruction/hr/l1"], l1[kept].mean(), rtol=1e-3)


def test_a_flip_mirrors_the_frame_behind_the_clip_too(batch):
    """A still image, which fresh maps nearly copy: if the frame behind it were another way round, it would tell."""
    still = np.broadcast_to(batch.clip[:, :, :1], batch.clip.shape)
    given = batch._replace(clip=still, future=still[:, :, :1])
    one = built(flip=True)
    variables = begin(one, given)
    errors = [
        loss_of(one, train=True)(variables, given, jax.random.key(seed))[1].metrics["reconstruction/hr/l1"]
        for seed in range(3)
    ]
    turned = given._replace(future=given.future[..., ::-1, :])
    told = loss_of(built(), train=True)(variables, turned, jax.random.key(0))[1].metrics["reconstruction/hr/l1"]
    assert max(errors) < 0.05 < told


def test_the_first_stage_moves_no_recogniser(method, variables):
    before, stage = begin(method, a_batch(method)), method.stages[0]

    def loss(params, batch):
        return method.loss({**before, "params": params}, batch, jax.random.key(0), stage, train=True)[0]

    gradient = leaves(jax.jit(jax.grad(loss))(before["params"], a_batch(method)))
    names = {name.split("/")[0] for name, g in gradient.items() if np.any(g)}
    assert names == {"backbone", "context", "decoder", "upsampler"}
    outputs = loss_of(method, train=True)(before, a_batch(method), jax.random.key(0))[1]
    changed = moved(before["batch_stats"], outputs.collections["batch_stats"])
    assert changed and not any("action" in name for name in changed)
    assert {name for name in before["params"] if stage.trainable((name, "kernel"))} == names


def test_gradients_of_the_joint_stage_reach_everything(method, variables, batch):
    def loss(params):
        given = {**variables, "params": params}
        return method.loss(given, batch, jax.random.key(0), method.stages[1], train=True)[0]

    still = [name for name, g in leaves(jax.jit(jax.grad(loss))(variables["params"])).items() if not np.any(g)]
    assert not still


def test_without_labels_there_is_one_stage_and_nothing_recognises(batch):
    one = built(classes=0)
    assert [stage.name for stage in one.stages] == ["motion"] and not one.classifies
    shapes = jax.eval_shape(one.init, jax.random.key(0), batch)
    assert set(shapes["params"]) == {"backbone", "context", "decoder", "upsampler"}
    assert jax.eval_shape(one.encode, shapes, batch.clip[:, 0]).logits is None


@pytest.mark.parametrize("inference", [(), ("backbone",), ("hr", "backbone")])
def test_scores_are_the_mean_over_pipelines(method, variables, batch, inference):
    found = jax.jit(built(inference=inference).encode)(variables, batch.clip[:, 0])
    each = network_of(method, variables, batch).logits
    assert set(each) == {"backbone", "lr", "hr"}
    expected = np.mean([jax.nn.softmax(each[name]) for name in inference or each], axis=0)
    np.testing.assert_allclose(jax.nn.softmax(found.logits), expected, rtol=1e-4)


def test_encoded_clips_have_motion_of_every_frame(method, variables, batch):
    found = jax.jit(method.encode)(variables, batch.clip[:, 0])
    np.testing.assert_allclose(found.features["motion"], np.asarray(found.maps["motion"]).mean((1, 2, 3)), rtol=1e-5)
    assert method.frames_of(4)["motion"].tolist() == [0, 1, 2, 3]


def a_motion(hr=None, lr=None):
    maps = [None if x is None else MotionMaps(jnp.asarray(x)) for x in (lr, hr)]
    return Moved(None, None, *maps, None, {})


def test_flow_leads_where_the_filters_take_pixels_from():
    maps = np.zeros((1, 3, 8, 9, 25), np.float32)
    maps[..., (1 + 2) * 5 + (-2 + 2)] = 1  # m = 1, n = -2
    inside = np.asarray(_flow(a_motion(maps), (8, 9)))[:, :, 2:, :-1]  # the others lead out of the frame
    np.testing.assert_allclose(inside, np.broadcast_to(np.float32([1, -2]), (1, 2, 6, 8, 2)), atol=1e-6)


def test_flow_of_the_low_resolution_is_in_pixels_of_the_clip():
    maps = np.zeros((1, 2, 4, 4, 9), np.float32)
    maps[..., 2 * 3 + 1] = 1  # m = 1, n = 0
    flow = _flow(a_motion(lr=maps), (8, 8))
    expected = np.broadcast_to(np.float32([2, 0]), (1, 1, 8, 5, 2))
    np.testing.assert_allclose(np.asarray(flow)[:, :, :, :5], expected, atol=1e-6)


def test_half_precision_gives_about_the_same_loss(variables, batch):
    whole, half = (
        loss_of(built(dtype=dtype), train=True)(variables, batch, jax.random.key(0))[1].metrics
        for dtype in ("float32", "bfloat16")
    )
    for name in ("reconstruction/hr", "reconstruction/lr"):
        assert half[name].dtype == jnp.float32 and half[name] != whole[name]
        np.testing.assert_allclose(half[name], whole[name], rtol=0.05)


@pytest.mark.parametrize("upsampling", ["learnt", "nearest", "none"])
def test_upsampling_that_nothing_guides_has_no_context(batch, upsampling):
    pipelines = ("backbone", "lr") if upsampling == "none" else ("hr",)
    one = built(maps=CONFIG["maps"] | {"upsampling": upsampling}, pipelines=pipelines)
    shapes = jax.eval_shape(one.init, jax.random.key(0), batch)
    assert {"context", "upsampler"} & set(shapes["params"]) == ({"upsampler"} if upsampling == "learnt" else set())
    assert ("reconstruction/hr" in one.stages[0].terms) == (upsampling != "none")
    loss_of(one, train=True).lower(shapes, batch, jax.random.key(0))
    assert set(one.deployed) == set(shapes["params"])
    made = jax.eval_shape(one.next_frames, shapes, batch.clip[:, 0])
    assert made is None if upsampling == "none" else made.shape == batch.clip[:, 0].shape


def test_maps_of_the_frames_own_resolution_make_frames_without_upsampling(batch):
    """The paper's scale 1 (Figure 6)."""
    maps = CONFIG["maps"] | {"scale": 1, "upsampling": "none", "decoder_widths": (6, 5, 5)}
    one = built(0, maps=maps, pipelines=("backbone", "lr"))
    variables = begin(one, batch)
    made = jax.jit(one.next_frames)(variables, batch.clip[:, 0])
    found = network_of(one, variables, batch)
    assert found.hr is None
    expected = by_hand(batch.clip[0, 0, 2] / np.float32(255), np.asarray(found.lr.maps)[0, 2])
    np.testing.assert_allclose(made[0, 2], expected, rtol=1e-3, atol=1e-4)


def test_a_run_that_was_interrupted_goes_on_to_the_same_bits(tmp_path):
    one = built(classes=0, stages={"motion": tiny.schedule(4)})
    memory.run(tmp_path / "whole", one)
    with pytest.raises(KeyboardInterrupt):
        memory.run(tmp_path / "cut", one, memory.Memory(stop_after=3))
    memory.run(tmp_path / "cut", one)
    found, expected = (final_variables(tmp_path / name, one) for name in ("cut", "whole"))
    jax.tree.map(np.testing.assert_array_equal, found, expected)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"pipelines": ("backbon",)}, "pipelines: there is no 'backbon' here. Did you mean 'backbone'"),
        ({"pipelines": ()}, "pipelines must name what tells the action"),
        ({"inference": ("lrr",)}, "inference: 'lrr' is none of the pipelines that learn. Did you mean 'lr'"),
        ({"maps": {"upsampling": "none"}}, "pipelines: there is no 'hr' here"),
        ({"maps": {"filter_size": 4}}, "filter_size must be odd"),
        ({"context_stage": "stem"}, "context_stage: no stage is called 'stem'"),
        ({"context": {"name": "i3d"}}, "context: 'i3d' does not see each frame alone"),
        ({"context": {"name": "r2d_10"}}, "context: 'r2d_10' does not see each frame alone"),
        ({"motion_blocks": ("res9",)}, "motion_blocks: no stage is called 'res9'"),
        ({"context": CONFIG["context"] | {"mean": (0.0, 0.0, 0.0)}}, "context: mean and std are the backbone's"),
        ({"maps": SIZES | {"upsampled_filter_size": 3}}, "upsampled_filter_size must be 5 or more at scale 4"),
        ({"lr_weight": -1.0}, "lr_weight and classification_weight must be 0 or more"),
        ({"stages": {"joint": tiny.schedule()}}, "stages must be 'motion' and, to use labels, 'joint'"),
        ({"area": (2.0, 3.0)}, "area: "),
    ],
)
def test_wrong_fields_are_named(fields, message):
    with pytest.raises(ConfigError, match=message):
        built(**fields)


def test_pictures_show_where_filters_move_and_where_context_moves_them(method, variables, batch):
    found = jax.jit(method.highlights)(variables, batch)
    assert set(found) == {"motion", "context"} and all(highlight.clip == 0 for highlight in found.values())
    moved = network_of(method, variables, batch)
    maps = np.asarray(moved.hr.maps)
    np.testing.assert_allclose(found["motion"].strength, abs(maps - (np.arange(25) == 12)).sum(-1), rtol=1e-3)
    network = method.network.bind(variables)
    _, features = network.context(method.normalise(batch.clip[:, 0]), False)
    even = np.asarray(features["res3"]).mean((2, 3), keepdims=True) + np.zeros_like(moved.motion)
    expected = abs(maps - network.upsampler(moved.lr.maps, moved.motion, even).maps).sum(-1)
    assert expected.mean() > 1e-2
    np.testing.assert_allclose(found["context"].strength, expected, rtol=1e-2, atol=1e-4)


@pytest.mark.parametrize("upsampling", ["guided", "none"])
def test_it_trains_evaluates_and_exports_on_sprites(tmp_path, upsampling):
    pipelines = ("backbone", "lr") if upsampling == "none" else ("backbone", "hr")
    maps, whole = CONFIG["maps"] | {"scale": 4, "upsampling": upsampling}, tiny_config.get_config().to_dict()
    whole["method"] = CONFIG | {"maps": maps, "pipelines": pipelines}
    whole["method"]["stages"] = {name: tiny.schedule() for name in ("motion", "joint")}
    whole["data"]["sprites"] |= {"frames": 9, "rendered": True, "closing_speed": (1.0, 1.3)}
    whole["evaluation"] |= {"protocols": ("recognition", "flow", "prediction", "neighbours")}
    whole["evaluation"]["baselines"] = ("optical_flow",)
    config, workdir = complete(whole).to_dict(), tmp_path / "run"
    run(config, str(workdir), "train")
    results = json.loads((workdir / "results.json").read_text())
    assert 0 <= results["top1"] <= 1 and set(results["knn"]) == {"backbone", "motion"} and results["flow"]["epe"] > 0
    data = open_data(build(DataConfig, whole["data"]), None, future=1)
    (batch,) = data.eval_batches(whole["evaluation"]["split"], 32, reads=Reads(future=1))
    frames = np.concatenate([batch.clip, batch.future], axis=2)[batch.valid, 0] / 255
    l1 = 2 * abs(np.diff(frames, axis=1)).mean((0, 2, 3, 4))
    for part, expected in (("seen", l1[:-1].mean()), ("unseen", l1[-1])):
        assert results["prediction"][part]["l1"]["copying"] == pytest.approx(expected, rel=1e-4)
    makers = {"motion, flow", "classical", "copying"} | ({"learnt"} if upsampling == "guided" else set())
    assert set(results["prediction"]["unseen"]["psnr"]) == makers
    with np.load(workdir / "per_video.npz") as values:
        assert {f"prediction.{part}.l1.{name}" for part in ("seen", "unseen") for name in makers} <= set(values)
    pictures = {"prediction.png", "prediction.webp"} if upsampling == "guided" else set()
    assert {"flow.png", "highlights.png"} | pictures <= {path.name for path in (workdir / "figures").iterdir()}
    assert "Predicted frames" in (workdir / "report.html").read_text()
    run(config, str(workdir), "export")
    exported, trained = hcml_jax.load(workdir / "export"), hcml_jax.load(workdir)
    clips = np.random.default_rng(0).integers(0, 256, (2, 8, 32, 32, 3), dtype=np.uint8)
    jax.tree.map(np.testing.assert_array_equal, exported.encode(clips), trained.encode(clips))
    if upsampling == "guided":
        assert exported.next_frames(clips).shape == clips.shape
        made = np.clip(hcml_jax.load(workdir, stage="motion").next_frames(batch.clip[batch.valid, 0]), 0, 1)
        error = 2 * abs(made - frames[:, 1:])[:, -1].mean()
        assert results["prediction"]["unseen"]["l1"]["learnt"] == pytest.approx(error, rel=1e-3)
    else:
        with pytest.raises(ConfigError, match="this network makes no frames"):
            exported.next_frames(clips)
    elsewhere = config | {"init_from": {"path": str(workdir / "export")}}
    run(elsewhere, str(tmp_path / "elsewhere"), "evaluate")
    again = json.loads((tmp_path / "elsewhere" / "results.json").read_text())
    assert again["top1"] == results["top1"]
