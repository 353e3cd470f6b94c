"""Flow that a network computes of the clips that are shown, on their devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data_pipelines import DataConfig, DataError, SpritesConfig, open_data
from hcml_jax.batch import Reads
from hcml_jax.config import ConfigError
from hcml_jax.experiment import complete, run
from hcml_jax.flow_networks import flow_network
from hcml_jax.inference import load
from hcml_jax.models.raft import RAFT
from hcml_jax.training.mesh import Layout, make_mesh
from hcml_jax.training.metrics import read_records
from hcml_jax.weights.import_weights import read_imported
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

    data = opened("hcml:none", network)
    assert data.flow_fault("train") is None and not data.flow_is_true
    train = next(data.train_batches(2, seed=0, stage="contrast", reads=READS))
    (held,) = data.eval_batches("test", 4, reads=READS)
    for batch in (train, held):
        assert batch.flow is None and batch.future.shape[1:3] == (2, 1)
        placed = Layout(make_mesh()).shard_batch(batch)
        completed = data.complete(placed, READS)
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
    run(config("hcml:sprites"), str(tmp_path), "train")
    records = read_records(tmp_path)
    assert [record["split"] for record in records] == ["train", "train", "validation"]
    assert {"flow_images.png", "similarities.png"} <= {path.name for path in (tmp_path / "figures").iterdir()}


def test_clips_that_are_too_small_for_a_network_are_refused_before_training(raft, tmp_path):
    with pytest.raises(ConfigError, match="RAFT needs 2 frames or more of 128 x 128 pixels"):
        run(config(f"raft:{raft}"), str(tmp_path), "train")
    assert not (tmp_path / "checkpoints").exists()


def test_a_network_that_nobody_gives_is_missed():
    with pytest.raises(DataError, match="flow 'hcml:none' is a network's"):
        opened("hcml:none")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("raft:nowhere", "raft:nowhere: no weights are there"),
        ("raft:", "not by 'raft:'"),
        ("tvl1:x", "not by 'tvl1:x'"),
        ("hcml:nowhere", "nowhere"),
    ],
)
def test_networks_that_are_not_there_are_refused(name, message):
    with pytest.raises(ConfigError, match=message):
        flow_network(name)
