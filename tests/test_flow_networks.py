"""Flow that a network computes of the clips that are shown, on their devices."""

import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data_pipelines import DataConfig, DataError, SpritesConfig, open_data
from data_pipelines.flow import opencv
from hcml_jax.batch import Reads
from hcml_jax.config import ConfigError, UserError
from hcml_jax.experiment import complete, run
from hcml_jax.flow_networks import FlowNetwork, flow_network
from hcml_jax.inference import load
from hcml_jax.methods import build_method
from hcml_jax.models.raft import RAFT
from hcml_jax.training.mesh import Layout, make_mesh
from hcml_jax.training.metrics import read_records
from hcml_jax.training.restore import learnt
from hcml_jax.training.step import init_variables
from hcml_jax.weights.import_weights import read_imported
from hcml_jax.weights.variables import read_variables, save_variables
from tests.methods import test_mscl as tiny_mscl
from tests.methods import tiny

READS = Reads(clips=2, future=1, flow=True)
SPRITES = {
    "size": 32,
    "radius": (5.0, 6.0),
    "pair_radius": (3.0, 4.0),
    "closing_speed": (1.0, 1.5),
    "classes": ("translate_up", "zoom_in"),
}


def clips_of(frames, side, count=2):
    return np.random.default_rng(0).integers(0, 256, (count, frames, side, side, 3), dtype=np.uint8)


def opened(flow, network=None):
    sprites = SpritesConfig(**SPRITES, rendered=True, train_per_class=4, val_per_class=1, test_per_class=2)
    sizes = {"frames": 4, "stride": 1, "short_side": (32, 32), "crop": 32}
    return open_data(DataConfig("", sprites=sprites, **sizes, flow=flow), future=1, network=network)


def test_raft_looks_from_each_frame_to_the_next(raft):
    clips = clips_of(3, 128)
    variables, _ = read_imported(raft)
    given = {name: tree["raft"] for name, tree in variables.items()}
    expected = jax.jit(RAFT("small").apply)(given, clips / np.float32(255))
    found = jax.jit(flow_network(f"raft:{raft}"))(clips)
    assert found.shape == (2, 2, 128, 128, 2)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("frames", [2, 3, 9])
def test_level_0_of_hcml_looks_from_each_frame_to_the_next(frames):
    clips = clips_of(16, 64)
    found = jax.jit(flow_network("hcml:sprites"))(clips[:, :frames])
    expected = load("sprites").flow(clips)["level0"][:, : frames - 1]
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)


def test_a_batch_is_completed_on_its_devices():
    """By the network's flow of each clip and the frames behind it; the reader reads none."""

    def network(clips):
        return jnp.diff(clips.astype(jnp.float32), axis=1)[..., :2]

    data = opened("hcml:none", FlowNetwork(network, "abc", 1))
    assert data.census["flow"] == "abc" and "flow" not in opened("truth").census
    assert data.flow_fault("train") is None and not data.flow_is_true
    train = next(data.train_batches(2, seed=0, stage="contrast", reads=READS))
    (held,) = data.eval_batches("test", 4, reads=READS)
    for batch in (train, held):
        assert batch.flow is None and batch.future.shape[1:3] == (2, 1)
        placed = Layout(make_mesh()).shard_batch(batch)
        completed = jax.jit(data.complete, static_argnums=1)(placed, READS)
        shown = np.concatenate([batch.clip, batch.future], axis=2).astype(np.float32)
        np.testing.assert_array_equal(completed.flow, np.diff(shown, axis=2)[..., :2])
        assert completed.flow.sharding.is_equivalent_to(placed.clip.sharding, completed.flow.ndim)
        assert data.complete(placed, Reads(clips=2, future=1)).flow is None
    assert opened("truth").complete(held, READS) is held


def test_rendered_sprites_may_have_flow_by_dis():
    data = opened("dis")
    (batch,) = data.eval_batches("test", 4, reads=READS)
    (true,) = opened("truth").eval_batches("test", 4, reads=READS)
    np.testing.assert_array_equal(batch.clip, true.clip)
    moving = np.linalg.norm(true.flow, axis=-1) > 0.5
    error = np.linalg.norm(batch.flow - true.flow, axis=-1)[moving].mean()
    assert error < 0.6 * np.linalg.norm(true.flow, axis=-1)[moving].mean()


def exported(folder, **fields):
    """A random tiny HCML of one level, as `load` takes it."""
    config = tiny.hcml_config() | {"levels": ("reconstruction",), "stages": {"level0": tiny.schedule()}} | fields
    method = build_method(config, 3)
    variables = jax.device_get(init_variables(method, tiny.CLIP_SHAPE, 0, Layout(make_mesh())))
    folder.mkdir()
    described = {"config": {"method": config}, "classes": "abc", "clip_shape": tiny.CLIP_SHAPE}
    (folder / "run.json").write_text(json.dumps(described | {"recognises": False}))
    kept = learnt(variables, method.deployed)
    save_variables(folder / "variables.safetensors", kept)
    return f"hcml:{folder}"


def config(flow):
    """A tiny run of MSCL on rendered sprites."""
    method = tiny_mscl.CONFIG | {"stages": {"contrast": tiny.schedule(2)}, "flip": False}
    sprites = SPRITES | {"rendered": True, "frames": 10, "train_per_class": 4, "val_per_class": 2, "test_per_class": 2}
    sizes = {"frames": 8, "stride": 1, "jitter": True, "short_side": (32, 32), "crop": 32}
    return complete(
        {
            "seed": 0,
            "method": method,
            "data": {"root": "", "sprites": sprites, **sizes, "flow": flow},
            "training": {"batch_size": 4, "log_every": 1, "checkpoint_every": 2, "validation_split": "val"},
            "evaluation": {"protocols": (), "figure_clips": 2},
        }
    ).to_dict()


def test_a_run_trains_on_the_flow_of_a_network(tmp_path):
    flow = exported(tmp_path / "network")
    run(config(flow), str(tmp_path / "run"), "train")
    records = read_records(tmp_path / "run")
    assert [record["split"] for record in records] == ["train", "train", "validation"]
    assert {"flow_images.png", "similarities.png"} <= {path.name for path in (tmp_path / "run" / "figures").iterdir()}
    variables = tmp_path / "network" / "variables.safetensors"
    changed = read_variables(variables)
    jax.tree.map(lambda array: np.add(array, 1, out=array), changed)
    save_variables(variables, changed)  # as a run that trained on would
    with pytest.raises(UserError, match=r"clips.flow"):
        run(config(flow), str(tmp_path / "run"), "train")


def test_clips_that_are_too_small_for_a_network_are_refused_before_training(raft, tmp_path):
    with pytest.raises(ConfigError, match="config.data.flow: its network does not fit these clips: RAFT needs 2"):
        run(config(f"raft:{raft}"), str(tmp_path), "train")
    assert not (tmp_path / "checkpoints").exists()


def test_flow_by_dis_needs_opencv(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    opencv.cache_clear()
    with pytest.raises(DataError, match="needs OpenCV"):
        opened("dis").flow_fault("train")


def test_a_network_that_nobody_gives_is_missed():
    data = opened("hcml:none")
    assert "it is hcml:none's, and open_data was given no such network" in data.flow_fault("train")
    with pytest.raises(DataError, match="it is hcml:none's"):
        data.train_batches(2, seed=0, stage="contrast", reads=READS)
    with pytest.raises(ValueError, match="flow is 'truth': no network computes it"):
        opened("truth", lambda clips: clips)


def test_networks_that_look_further_than_to_the_next_frame_are_refused(tmp_path):
    flow_network(exported(tmp_path / "pairs"))
    backbone = {**tiny.BACKBONE, "name": "resnet3d_10", "temporal_strides": (1, 2, 2, 1)}
    with pytest.raises(ConfigError, match="looks at more than two frames"):
        flow_network(exported(tmp_path / "more", backbone=backbone))


def test_networks_whose_level_0_gives_no_flow_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="level 0 gives no flow"):
        flow_network(exported(tmp_path / "none", levels=("action",)))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("raft:nowhere", "flow by raft:nowhere: no weights are in nowhere"),
        ("raft:", "not by 'raft:'"),
        ("tvl1:x", "not by 'tvl1:x'"),
        ("hcml:nowhere", "nowhere"),
    ],
)
def test_networks_that_are_not_there_are_refused(name, message):
    with pytest.raises(ConfigError, match=message):
        flow_network(name)
