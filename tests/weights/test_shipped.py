"""Weights that come with the package: whole, small, told of, and good for what they say."""

import pathlib

import jax
import numpy as np
import pytest

import hcml_jax
from configs import hcml_folder
from data_pipelines.write_video import encode
from hcml_jax import predict, search
from hcml_jax.config import ConfigError
from hcml_jax.init_from import InitFrom, known_classes, start_of
from hcml_jax.methods import build_method
from hcml_jax.predict import data_config
from hcml_jax.training.checkpoints import CheckpointError
from hcml_jax.weights.shipped import SHIPPED, folder_of
from hcml_jax.weights.variables import VARIABLES, read_variables, save_variables


@pytest.fixture(scope="module")
def model():
    return hcml_jax.load("sprites")


def texture(size):
    """A sum of waves that no sprite has, as a function of places (x, y)."""
    rng = np.random.default_rng(3)
    wave, phase = rng.uniform(-0.5, 0.5, (12, 2)), rng.uniform(0, 6, (12, 3))

    def at(x, y):
        values = np.cos(x[..., None, None] * wave[:, :1] + y[..., None, None] * wave[:, 1:] + phase)
        return np.clip(0.5 + values.mean(-2), 0, 1)

    return lambda dx, dy: at(*(a - d for a, d in zip(np.meshgrid(*2 * [np.arange(size)]), (dx, dy), strict=True)))


@pytest.mark.parametrize("velocity", [(2.0, 0.0), (0.0, -2.0), (-1.5, 1.0)])
def test_flow_follows_a_moving_texture(model, velocity):
    frame = texture(112)
    clip = np.stack([frame(velocity[0] * t, velocity[1] * t) for t in range(16)])[None]
    flow = np.asarray(model.flow(np.float32(clip))["level0"])
    assert flow.shape == (1, 15, 112, 112, 2)
    inner = flow[:, :, 16:-16, 16:-16]
    error = np.linalg.norm(inner - velocity, axis=-1).mean()
    assert error < 0.4 * np.linalg.norm(velocity)


def test_features_of_every_level_and_no_classifier(model):
    clips = np.random.default_rng(0).integers(0, 256, (2, *model.clip_shape), np.uint8)
    assert {name: x.shape for name, x in model.features(clips).items()} == {
        "level0": (2, 16),
        "level1": (2, 32),
        "level2": (2, 64),
        "backbone": (2, 128),
    }
    assert model.encode(clips).logits is None
    assert (model.classes, model.recognises, model.gives_flow) == ((), False, True)
    with pytest.raises(ConfigError, match="no classifier"):
        model.predict(clips)


def test_hcml_folder_begins_with_all_of_them():
    config = hcml_folder.get_config().to_dict()
    method = build_method(config["method"], num_classes=6)
    start = start_of(InitFrom("sprites"), method, (16, 112, 112, 3))()
    assert start.fresh == ("classifier/logits",)
    assert len(start.taken) == len(jax.tree.leaves(read_variables(SHIPPED["sprites"] / VARIABLES)))
    assert known_classes(InitFrom("sprites")) == ()


@pytest.mark.parametrize("name", SHIPPED)
def test_they_are_small_and_a_card_tells_of_them(name):
    files = {path.name: path.stat().st_size for path in SHIPPED[name].iterdir()}
    assert sum(files.values()) < 10e6
    card = (SHIPPED[name] / "README.md").read_text()
    for told in ("**Data.**", "**Recipe.**", "**Scores.**", "**Limits.**", "**Licence.**"):
        assert told in card


def test_a_folder_of_ones_own_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert folder_of("sprites") == SHIPPED["sprites"]
    (tmp_path / "sprites").mkdir()
    assert folder_of("sprites") == pathlib.Path("sprites")


def test_videos_are_taken_as_the_weights_saw_sprites():
    config = data_config(pathlib.Path("sprites"))
    assert (config.frames, config.stride, config.crop, config.sprites) == (16, 1, 112, None)


def test_they_show_flow_and_find_what_moves_alike(tmp_path, capsys):
    (tmp_path / "videos").mkdir()
    for name, step in (("left", -1), ("right", 1)):
        frames = [np.uint8(255 * texture(112)(step * t, 0)) for t in range(17)]
        encode(np.stack(frames), tmp_path / "videos" / f"{name}.mp4", crf=12, rate=10)
    video = tmp_path / "videos" / "left.mp4"
    predict.main([str(video), "--model", "sprites", "--clips", "1", "--out", str(tmp_path / "flow.mp4")])
    shown = capsys.readouterr()
    assert shown.out == f"flow in {tmp_path / 'flow.mp4'}\n" and "has not learnt to classify" in shown.err
    assert (tmp_path / "flow.mp4").stat().st_size > 1000
    folder, page = str(tmp_path / "videos"), str(tmp_path / "page.html")
    search.main([folder, "--model", "sprites", "--query", str(video), "--out", page])
    assert "right.mp4" in (tmp_path / "page.html").read_text()


def test_an_export_of_another_network_is_refused(tmp_path):
    variables = read_variables(SHIPPED["sprites"] / VARIABLES)
    (tmp_path / "run.json").write_text((SHIPPED["sprites"] / "run.json").read_text())
    variables["params"]["backbone"]["stem"]["extra"] = np.zeros(3)
    save_variables(tmp_path / VARIABLES, variables)
    with pytest.raises(CheckpointError, match="params/backbone/stem/extra differs"):
        hcml_jax.load(tmp_path)
