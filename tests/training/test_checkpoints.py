"""What comes back from a disk is what went there, or is refused by name; the one before it is offered."""

import gc
import shutil
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from orbax.checkpoint import v1 as ocp

from hcml_jax.training.checkpoints import CheckpointError, Checkpoints, Position
from hcml_jax.training.integrity import fingerprints
from hcml_jax.training.mesh import Layout, make_mesh

SHAPES = {"variables": {"weights": (64, 100), "bias": (7,)}, "step": ()}


def state(seed):
    rng = np.random.default_rng(seed)
    draw = lambda shape: jnp.asarray(rng.normal(size=shape), jnp.float32)  # noqa: E731
    return jax.tree.map(draw, SHAPES, is_leaf=lambda x: isinstance(x, tuple))


@pytest.fixture
def unread():
    """Collects, before the test ends, what Orbax leaves behind of a reading that failed."""
    yield
    gc.collect()


@pytest.fixture
def folder(tmp_path):
    """Two checkpoints, of steps 1 and 2."""
    with Checkpoints(tmp_path, keep=2, writes=True) as checkpoints:
        for step in (1, 2):
            checkpoints.save(Position(step, "stage", step, False), state(step), 1.0)
    return tmp_path


def restore(folder, step=2):
    with Checkpoints(folder) as checkpoints:
        position = next(p for p in checkpoints.positions if p.step == step)
        return checkpoints.restore(position, Layout(make_mesh()).abstract_state(state(0)))


def test_what_a_run_started_from_is_kept_and_so_is_the_newest_without_a_loss(tmp_path):
    with Checkpoints(tmp_path, keep=1, writes=True) as checkpoints:
        checkpoints.save(Position(0, "stage", 0, False), state(0), None)
        for step, loss in ((1, 1.0), (2, 2.0), (3, 3.0), (4, None)):
            checkpoints.save(Position(step, "stage", step, False), state(step), loss)
        assert checkpoints.latest.step == 4
        assert [position.step for position in checkpoints.positions] == [0, 1, 4]
    jax.tree.map(np.testing.assert_array_equal, restore(tmp_path, 0), state(0))


def data_files(checkpoint):
    return sorted(p for p in checkpoint.rglob("*") if p.is_file() and "/d/" in p.as_posix())


def test_a_state_comes_back_bit_for_bit(folder):
    jax.tree.map(np.testing.assert_array_equal, restore(folder), state(2))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.usefixtures("unread")
@pytest.mark.parametrize("place", [0.2, 0.5, 0.8])
def test_a_flipped_byte_is_refused_by_name_and_the_checkpoint_before_is_offered(folder, place):
    path = max(data_files(folder / "2"), key=lambda p: p.stat().st_size)
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 0x10
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"(?s){folder}/2 cannot be read.*of step 1, move 2 out"):
        restore(folder)
    shutil.rmtree(folder / "2")
    jax.tree.map(np.testing.assert_array_equal, restore(folder, 1), state(1))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.usefixtures("unread")
@pytest.mark.parametrize("which", [min, max, sorted], ids=["the least", "the largest", "all"])
def test_a_missing_file_is_refused_by_name_and_the_checkpoint_before_is_offered(folder, which):
    files = which([(path.stat().st_size, path) for path in data_files(folder / "2")])
    for _, path in files if isinstance(files, list) else [files]:
        path.unlink()
    with pytest.raises(CheckpointError, match=rf"(?s){folder}/2 cannot be read.*of step 1, move 2 out"):
        restore(folder)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.usefixtures("unread")
@pytest.mark.parametrize("harm", ["gone", "flipped", "cut"])
def test_whatever_file_is_damaged_the_state_is_right_or_refused_by_name(folder, tmp_path, harm):
    whole = tmp_path / "whole"
    shutil.copytree(folder / "2", whole)
    files = [path.relative_to(whole) for path in whole.rglob("*") if path.is_file()]
    refused = []
    for name in files:
        path = folder / "2" / name
        content = bytearray(path.read_bytes())
        if harm == "gone":
            path.unlink()
        elif content:
            content[len(content) // 3] ^= 0x01
            path.write_bytes(content if harm == "flipped" else content[: len(content) // 2])
        try:
            with Checkpoints(folder) as checkpoints:
                wanted = Layout(make_mesh()).abstract_state(state(0))
                found = checkpoints.restore(checkpoints.latest, wanted)
            jax.tree.map(np.testing.assert_array_equal, found, state(2))
        except CheckpointError as error:
            assert f"{folder}/2 cannot be read" in str(error), name
            assert "the one before it" in str(error) and "move 2 out" in str(error), name
            refused.append(name.name)
        shutil.rmtree(folder / "2")
        shutil.copytree(whole, folder / "2")
    assert "_CHECKPOINT_METADATA" in refused
    assert len(refused) >= 3


def test_a_position_that_was_changed_is_refused_by_name(folder):
    path = folder / "2" / "_CHECKPOINT_METADATA"
    known = path.read_text()
    assert '"stage_step": 2' in known
    path.write_text(known.replace('"stage_step": 2', '"stage_step": 3'))
    with pytest.raises(CheckpointError, match=rf"{folder}/2 cannot be read: .* is not what was"):
        restore(folder)


def test_a_save_without_room_is_not_begun(tmp_path, monkeypatch, capsys):
    with Checkpoints(tmp_path, writes=True) as checkpoints:
        checkpoints.save(Position(1, "stage", 1, False), state(1), 1.0)
        assert checkpoints.latest.step == 1
        left = tmp_path / "2.orbax-checkpoint-tmp"
        left.mkdir()
        full = types.SimpleNamespace(free=1000)
        monkeypatch.setattr(shutil, "disk_usage", lambda path: full)
        checkpoints.save(Position(2, "stage", 2, False), state(2), 1.0)
        assert checkpoints.latest.step == 1
        assert not left.exists()
        assert "no room for 0.0 MiB" in capsys.readouterr().err
        with pytest.raises(CheckpointError, match="no room for 0.0 MiB"):
            checkpoints.save(Position(2, "stage", 2, True), state(2), 1.0, needed=True)


def test_a_checkpoint_of_an_older_layout_is_refused_by_name(folder, monkeypatch):
    monkeypatch.setattr("hcml_jax.training.checkpoints.LAYOUT", 2)
    with pytest.raises(CheckpointError, match=rf"{folder}/2 cannot be read: .*layout 1; this version reads layout 2"):
        restore(folder)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.int32, jnp.uint8])
def test_a_fingerprint_sees_every_change_and_every_exchange(dtype):
    array = jnp.arange(24).reshape(2, 3, 4).astype(dtype)
    seen = {fingerprints({"x": array})["x"]}
    for i in range(24):
        seen.add(fingerprints({"x": array.at[np.unravel_index(i, array.shape)].set(99)})["x"])
    seen.add(fingerprints({"x": array[::-1]})["x"])
    assert len(seen) == 26


def test_a_fingerprint_sees_every_change_of_truths():
    array = jnp.arange(24).reshape(2, 3, 4) % 3 == 0
    changed = [array.at[np.unravel_index(i, array.shape)].set(~array.ravel()[i]) for i in range(24)]
    assert len({fingerprints({"x": x})["x"] for x in (array, *changed)}) == 25


def test_a_fingerprint_equals_numpy():
    array = np.random.default_rng(0).normal(size=(5, 7)).astype(np.float32)
    weights = 2 * np.arange(35, dtype=np.uint64) + 1
    expected = int((array.view(np.uint32).ravel() * weights).sum() % 2**32)
    assert fingerprints({"a": {"b": array}}) == {"a/b": expected}


def test_the_run_goes_on_without_a_checkpoint_that_cannot_be_written(tmp_path, monkeypatch, capsys):
    save_async = ocp.training.Checkpointer.save_async

    def full_at_step_2(self, step, *args, **kwargs):
        if step == 2:
            raise ValueError("RESOURCE_EXHAUSTED: No space left on device")
        return save_async(self, step, *args, **kwargs)

    monkeypatch.setattr(ocp.training.Checkpointer, "save_async", full_at_step_2)
    with Checkpoints(tmp_path, keep=3, writes=True) as checkpoints:
        for step in (1, 2, 3):
            checkpoints.save(Position(step, "stage", step, False), state(step), 1.0)
        assert checkpoints.latest.step == 3
        assert [p.step for p in checkpoints.positions] == [1, 3]
        told = capsys.readouterr().err
        assert "is the disk full" in told and "the run goes on without it" in told
        with pytest.raises(CheckpointError, match="is the disk full"):
            checkpoints.save(Position(2, "stage", 2, True), state(2), 1.0, needed=True)
    jax.tree.map(np.testing.assert_array_equal, restore(tmp_path, 3), state(3))
