"""Classes and flow of a single video."""

import av
import jax.numpy as jnp
import numpy as np
import pytest

from data_pipelines import DataConfig, DataError
from data_pipelines.one_video import read_clips_of, read_whole
from data_pipelines.write_video import encode
from hcml_jax.inference import Model
from hcml_jax.methods.base import Encoded
from hcml_jax.predict import flow_of, main, predict, write_flow

CONFIG = DataConfig("somewhere", frames=4, stride=2, short_side=(32, 32), crop=32, short_clips="loop")


@pytest.fixture
def video(tmp_path):
    """Eleven frames that get lighter."""
    frames = np.broadcast_to(np.arange(11)[:, None, None, None] * 20, (11, 40, 64, 3)).astype(np.uint8)
    encode(frames, tmp_path / "a.mp4", crf=1, rate=10)
    return tmp_path / "a.mp4"


class Lightness:
    """A method that scores a clip by how light it is, and whose flow is each frame's lightness."""

    classifiers = ()
    flows = True
    stride = 1

    def frames_of(self, frames):
        return {"level0": np.arange(0, frames, self.stride)}

    def encode(self, variables, clips):
        light = jnp.asarray(clips).astype(jnp.float32).mean((2, 3, 4))
        pairs = light[:, : -1 : self.stride][:, : (clips.shape[1] - 1) // self.stride]
        flow = jnp.broadcast_to(pairs[..., None, None, None], (*pairs.shape, *clips.shape[2:4], 2))
        mean = light.mean(1)
        return Encoded({}, {}, {"level0": flow} if self.flows else {}, jnp.stack([-mean, mean], 1) / 100)


def model(**fields):
    method = Lightness()
    for name, value in fields.items():
        setattr(method, name, value)
    return Model(method, {}, ("dark", "light"), (4, 32, 32, 3), True)


def test_classes_are_those_of_the_mean_over_clips(video):
    clips = read_clips_of(video, CONFIG, 3)
    assert clips.shape == (3, 4, 32, 32, 3)
    found = predict(model(), video, CONFIG, 3)
    means = clips.mean((1, 2, 3, 4)) / 50
    assert [name for name, _ in found] == ["light", "dark"]
    assert found[0][1] == pytest.approx(np.mean(1 / (1 + np.exp(-means))), rel=1e-4)


def test_a_whole_video_is_every_strideth_frame(video):
    frames, rate = read_whole(video, CONFIG)
    np.testing.assert_allclose(frames.mean((1, 2, 3)), np.arange(0, 11, 2) * 20, atol=3)
    assert rate == 5
    assert len(read_whole(video, CONFIG, seconds=0.5)[0]) == 3


@pytest.mark.parametrize("count", [2, 4, 6, 7, 10])
def test_flow_is_of_every_pair_of_frames(count):
    frames = np.broadcast_to(10 * np.arange(count)[:, None, None, None], (count, 32, 32, 3)).astype(np.uint8)
    found = flow_of(model(), frames)
    np.testing.assert_allclose(found[:, 0, 0, 0], 10 * np.arange(count - 1))


def test_flow_over_two_frames_is_spread_over_both():
    frames = np.broadcast_to(10 * np.arange(7)[:, None, None, None], (7, 32, 32, 3)).astype(np.uint8)
    found = flow_of(model(stride=2), frames)
    # Clips of four frames begin at 0 and 3; the pair that is left over takes the flow before it.
    np.testing.assert_allclose(found[:, 0, 0, 0], [0, 0, 0, 15, 15, 15])


def test_the_video_is_written_with_its_flow_beside_it(video, tmp_path):
    out = tmp_path / "flow.mp4"
    write_flow(model(), video, CONFIG, out, 20)
    with av.open(str(out)) as container:
        shown = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert np.shape(shown) == (5, 32, 64, 3)
    np.testing.assert_allclose([f[:, :32].mean() for f in shown], np.arange(0, 10, 2) * 20, atol=4)
    assert {p.name for p in tmp_path.iterdir()} == {"a.mp4", "flow.mp4"}


def test_without_a_flow_of_its_own_opencvs_is_shown(video, tmp_path, monkeypatch):
    monkeypatch.setattr("hcml_jax.predict.dis_flow", lambda clip: np.zeros((*np.shape(clip)[:-1], 2))[1:] + 3.0)
    write_flow(model(flows=False), video, CONFIG, tmp_path / "flow.mp4", 20)
    with av.open(str(tmp_path / "flow.mp4")) as container:
        (frame, *_) = (frame.to_ndarray(format="rgb24") for frame in container.decode(video=0))
    assert frame.shape == (32, 64, 3)
    assert np.ptp(frame[:, 36:60].mean((0, 1))) > 20  # it is coloured


def test_a_file_that_cannot_be_written_is_refused_first(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main([str(tmp_path / "a.mp4"), "--model", str(tmp_path), "--out", "flow.txt"])
    assert "--out flow.txt must end in .mp4, .mkv, .mov" in capsys.readouterr().err


def test_what_is_no_video_is_named(tmp_path):
    (tmp_path / "b.mp4").write_bytes(b"no video")
    with pytest.raises(DataError, match="b.mp4"):
        predict(model(), tmp_path / "b.mp4", CONFIG)
