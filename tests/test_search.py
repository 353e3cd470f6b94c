"""Search: what moves alike is found; features are kept, added to, made anew where a video changed."""

import os
import re

import jax.numpy as jnp
import numpy as np
import pytest

from data_pipelines import DataConfig, DataError
from data_pipelines.write_video import encode
from hcml_jax import search as module
from hcml_jax.config import ConfigError
from hcml_jax.inference import Model
from hcml_jax.methods.base import Encoded
from hcml_jax.search import Index, feature_name, features_of, write_page

CONFIG = DataConfig("somewhere", frames=4, stride=1, short_side=(32, 32), crop=32, short_clips="loop")


class Color:
    """A method whose feature is a clip's mean colour."""

    def frames_of(self, frames):
        return {"level0": np.arange(frames), "level1": np.arange(0, frames, 2)}

    def encode(self, variables, clips):
        color = jnp.asarray(clips).astype(jnp.float32).mean((1, 2, 3)) * variables["params"]["scale"]
        return Encoded({"level0": color, "level1": -color, "backbone": color}, {}, {})


def model(scale=1.0):
    return Model(Color(), {"params": {"scale": np.float32(scale)}}, (), (4, 32, 32, 3), False)


def write(path, color):
    encode(np.broadcast_to(np.array(color, np.uint8), (5, 40, 48, 3)), path, crf=1, rate=8)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "videos").mkdir()
    for name, color in (("red", (250, 10, 10)), ("green", (10, 250, 10)), ("pink", (250, 90, 90))):
        write(tmp_path / "videos" / f"{name}.mp4", color)
    return tmp_path / "videos"


@pytest.fixture
def read(monkeypatch):
    """Names of the videos whose features are made."""
    found, make = [], module.features_of
    monkeypatch.setattr(
        module, "features_of", lambda m, path, *more: (found.append(path.stem), make(m, path, *more))[1]
    )
    return found


def index(folder, **fields):
    found = Index(folder.parent / "run", folder, model(**fields), CONFIG, 1)
    found.update()
    return found


def test_videos_alike_come_first(folder):
    asked = features_of(model(), folder / "red.mp4", CONFIG, 1)["level0"]
    found = index(folder).search(asked, "level0", 5)
    assert [path.stem for path, _ in found] == ["red", "pink", "green"]
    assert found[0][1] == pytest.approx(1, abs=1e-5) and found[2][1] < 0


def test_features_are_kept_and_added_to(folder, read):
    index(folder)
    assert sorted(read) == ["green", "pink", "red"]
    read.clear()
    index(folder)
    assert read == []
    write(folder / "blue.mp4", (10, 10, 250))
    write(folder / "red.mp4", (200, 0, 0))
    (folder / "pink.mp4").unlink()
    os.utime(folder / "green.mp4", (1, 1))
    found = index(folder)
    assert sorted(read) == ["blue", "green", "red"]
    assert len(found.search(np.ones(3, np.float32), "backbone", 9)) == 3
    read.clear()
    index(folder, scale=2.0)  # another network
    assert sorted(read) == ["blue", "green", "red"]


def test_an_interruption_loses_little(folder, read, monkeypatch):
    monkeypatch.setattr(module, "KEPT_EVERY", 1)
    make = module.features_of

    def stop(*given):
        if len(read) == 2:
            raise KeyboardInterrupt
        return make(*given)

    monkeypatch.setattr(module, "features_of", stop)
    with pytest.raises(KeyboardInterrupt):
        index(folder)
    monkeypatch.setattr(module, "features_of", make)
    read.clear()
    index(folder)
    assert len(read) == 1


def test_what_cannot_be_read_is_left_out_and_told(folder, capsys):
    (folder / "broken.mp4").write_bytes(b"no video")
    found = index(folder)
    assert [*found.unreadable] == [str(folder / "broken.mp4")]
    assert "left out: " in capsys.readouterr().err
    for path in folder.iterdir():
        path.write_bytes(b"no video")
    with pytest.raises(DataError, match="none of its 4 videos can be read"):
        index(folder)
    with pytest.raises(DataError, match="has no video files"):
        index(folder.parent / "none")


def test_a_damaged_file_of_features_is_named(folder):
    index(folder)
    (kept,) = (folder.parent / "run" / "search").iterdir()
    kept.write_bytes(kept.read_bytes()[:200])
    with pytest.raises(ConfigError, match="is damaged .*delete it and search again"):
        index(folder)


def test_features_have_names():
    assert feature_name(model()) == "level1"
    assert feature_name(model(), "backbone") == "backbone"
    with pytest.raises(ConfigError, match="no 'level2'. Did you mean 'level"):
        feature_name(model(), "level2")


def test_the_page_shows_every_video(folder, tmp_path):
    write_page(folder / "red.mp4", [(folder / "pink.mp4", 0.5)], CONFIG, "level1", tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text()
    assert len(re.findall('<img src="data:image/webp;base64,', text)) == 2
    assert "pink.mp4" in text and "cosine 0.500" in text and "http" not in text
