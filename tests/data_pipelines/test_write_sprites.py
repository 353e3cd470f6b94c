"""The written set: complete or absent, readable by anyone, and true to what was rendered."""

import csv
import json
import shutil
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np
import pytest

from data_pipelines import write_sprites as module
from data_pipelines.config import SpritesConfig
from data_pipelines.errors import DataError
from data_pipelines.sprites import render
from data_pipelines.video import probe, read_frames
from data_pipelines.write_sprites import write_sprites
from data_pipelines.write_video import encode

SIZES = {"train_per_class": 2, "test_per_class": 1, "val_per_class": 1}
CONFIG = SpritesConfig(classes=("zoom_in", "follow"), **SIZES, seed=4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_sprites(CONFIG, tmp_path_factory.mktemp("data") / "sprites")


def test_the_table_lists_every_clip_with_its_files(folder):
    with (folder / "table.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["split"] for row in rows] == ["train"] * 4 + ["test"] * 2 + ["val"] * 2
    labels = "zoom_in", "zoom_in", "follow", "follow", *("zoom_in", "follow") * 2
    assert tuple(row["label"] for row in rows) == labels
    assert rows[2]["path"] == "train/follow_0000.mp4" and rows[2]["family"] == "relational"
    assert all((folder / row["path"]).is_file() and (folder / row["flow"]).is_file() for row in rows)
    assert len(list(folder.rglob("*.mp4"))) == 8


def test_files_hold_what_was_rendered(folder):
    # The last of six clips: how many are of split "val" changes neither train nor test.
    key = jax.random.fold_in(jax.random.key(CONFIG.seed), 5)
    clip, flow, _ = jax.device_get(jax.jit(render, static_argnums=2)(key, 1, CONFIG))
    frames = read_frames(folder / "test/follow_0000.mp4", range(CONFIG.frames))
    error = np.square(frames.astype(float) - clip).mean()
    assert 10 * np.log10(255**2 / error) > 28  # PSNR in dB; colour is stored at half resolution
    light = (frames.mean(-1) - clip.mean(-1)).std()
    assert light < 5
    with np.load(folder / "test/follow_0000.npz") as file:
        assert file["flow"].dtype == np.float16
        np.testing.assert_allclose(file["flow"], flow, atol=2e-3)


def test_files_are_in_the_format_everyone_reads(folder):
    import av

    with av.open(str(folder / "train/zoom_in_0001.mp4")) as container:
        context = container.streams.video[0].codec_context
        assert (context.name, context.pix_fmt) == ("h264", "yuv420p")
    assert probe(folder / "train/zoom_in_0001.mp4")[:3] == (CONFIG.frames, 48, 48)


def test_a_complete_folder_is_used_as_it_is(folder):
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert write_sprites(CONFIG, folder) == folder
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_a_folder_of_another_config_is_refused(folder):
    other = SpritesConfig(classes=CONFIG.classes, **SIZES, seed=5)
    with pytest.raises(DataError, match="another config: seed 4 not 5; name another folder"):
        write_sprites(other, folder)
    assert json.loads((folder / "sprites.json").read_text())["seed"] == 4


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "holiday.mp4").write_bytes(b"x")
    with pytest.raises(DataError, match="holds something other than Motion Sprites"):
        write_sprites(CONFIG, tmp_path)
    assert (tmp_path / "holiday.mp4").read_bytes() == b"x"


def test_nothing_is_left_of_a_writing_that_failed(tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "encode", full)
    with pytest.raises(OSError, match="No space left"):
        write_sprites(SpritesConfig(frames=2, classes=("follow",)), tmp_path / "sprites")
    assert list(tmp_path.iterdir()) == []


def test_the_faster_of_two_writers_wins(tmp_path, folder, monkeypatch):
    def write_slowly(config, partial):
        (partial / "train").mkdir()
        shutil.copytree(folder, tmp_path / "sprites")  # meanwhile, another process

    monkeypatch.setattr(module, "_write_all", write_slowly)
    assert write_sprites(CONFIG, tmp_path / "sprites") == tmp_path / "sprites"
    assert [path.name for path in tmp_path.iterdir()] == ["sprites"]
    assert (tmp_path / "sprites" / "sprites.json").is_file()


def test_a_set_that_is_complete_since_a_writer_looked_is_used(folder, monkeypatch):
    complete, early = module._is_complete, [False]
    monkeypatch.setattr(module, "_is_complete", lambda *a: early.pop() if early else complete(*a))
    assert write_sprites(CONFIG, folder) == folder


def test_a_clip_is_encoded_to_the_same_bytes_every_time(tmp_path):
    """Beside other encoders: clips of the demo that differed from run to run with macroblock trees."""
    config = SpritesConfig()
    plan = module.plan(config)
    clips = [plan[number] for number in (9, 16, 25, 66, 74, 84, 1803, 1832)]
    ((_, clips, _),) = module._render_batches(config, clips)

    def encoded(number):
        path = tmp_path / f"{number}.mp4"
        encode(clips[number % 8], path, crf=config.crf, rate=8)
        return path.read_bytes()

    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(encoded, range(320)))
    assert all(len(set(found[clip::8])) == 1 for clip in range(8))


def test_colours_go_with_the_class_in_training_alone(tmp_path):
    """Of two classes half a colour circle apart, the hue of a frame's edge tells which one, or no more than chance."""
    sizes = {"train_per_class": 20, "test_per_class": 20, "val_per_class": 0}
    config = SpritesConfig(classes=("zoom_in", "zoom_out"), **sizes, seed=4, frames=2, appearance_cue=0.9)
    folder, right = write_sprites(config, tmp_path / "sprites"), {}
    for split in ("train", "test"):
        for label, name in enumerate(config.classes):
            means = [read_frames(folder / f"{split}/{name}_{i:04d}.mp4", [0])[0] for i in range(20)]
            # The hue of the ground, whose texture averages out; a sprite's hue lies a third of the circle away.
            edges = [np.concatenate([frame[:4].reshape(-1, 3), frame[-4:].reshape(-1, 3)]).mean(0) for frame in means]
            hues = np.angle(np.array(edges) @ np.exp(-2j * np.pi * np.arange(3) / 3)) / (2 * np.pi)
            right.setdefault(split, []).extend((np.abs((hues - label / 2 + 0.5) % 1 - 0.5) < 0.25).tolist())
    assert np.mean(right["train"]) > 0.8
    assert np.mean(right["test"]) < 0.75
