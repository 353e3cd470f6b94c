"""Features in files: extracted once, gone on with, alike in every batch size; what is damaged or foreign is named."""

import dataclasses
import itertools

import jax
import numpy as np
import pytest

from hcml_jax.batch import ONE_CLIP, Reads, blank_batch
from hcml_jax.config import ConfigError
from hcml_jax.evaluation import extract as module
from hcml_jax.evaluation.clips import Clips
from hcml_jax.evaluation.config import parse_views
from hcml_jax.evaluation.extract import Source, baseline, extract, make_encoder, network
from hcml_jax.evaluation.feature_files import FeatureError
from hcml_jax.training.mesh import Layout, make_mesh
from tests.methods import tiny


class Videos:
    """Videos whose every pixel is their row; row 5 cannot be read; every third may have no label."""

    clip_shape = (4, 8, 8, 3)

    def __init__(self, count, broken=5, unlabelled=False):
        self.census, self.sampling = {"test": count}, {"stride": 1}
        self._count, self._broken, self._unlabelled, self.read = count, broken, unlabelled, []

    def num_clips(self, split):
        return self._count

    def spread(self, split, count, labelled_only=False):
        rows = range(count - 1, -1, -1)  # not in the table's order
        return [row for row in rows if row % 3 or not (self._unlabelled and labelled_only)]

    def video(self, row):
        return f"{row}.mp4"

    def eval_batches(self, split, batch_size, *, reads=ONE_CLIP, only=None, shard_index=0, num_shards=1):
        for first in range(0, len(only), batch_size):
            rows = [*only[first : first + batch_size]]
            padded = np.array(rows + rows[-1:] * (batch_size - len(rows)))
            self.read += rows
            blank = blank_batch(batch_size, self.clip_shape, reads)
            value = padded[:, None] + np.arange(reads.clips * reads.crops)
            yield blank._replace(
                clip=(blank.clip + value[..., None, None, None, None]).astype(np.uint8),
                label=np.where(padded % 3 if self._unlabelled else True, padded % 2, -1).astype(np.int32),
                index=padded.astype(np.int32),
                valid=(np.arange(batch_size) < len(rows)) & (padded != self._broken),
            )


def clips(videos, batch_size=4, **fields):
    return Clips(videos, batch_size, Layout(make_mesh(jax.local_devices())), **fields)


SOURCE = Source("mean", lambda clips: ({"pixel": clips.mean((1, 2, 3))}, None), {"network": "a"})


def test_every_video_that_can_be_read_counts_once_whatever_the_batch(tmp_path):
    rng = np.random.default_rng(0)
    for trial in range(100):
        count, batch_size, broken = (int(n) for n in rng.integers(1, 30, 3))
        videos = Videos(count, broken, unlabelled=True)
        rows = [row for row in range(count) if row != broken and row % 3]
        if not rows:
            with pytest.raises(FeatureError, match="no labelled video of the split could be read"):
                extract(SOURCE, clips(videos, batch_size), "test", tmp_path / str(trial), "", True)
            continue
        found = extract(SOURCE, clips(videos, batch_size), "test", tmp_path / str(trial), "", True)
        assert found.index.tolist() == rows
        np.testing.assert_allclose(found.feature("pixel"), np.repeat(rows, 3).reshape(-1, 3))


def test_views_are_averaged_and_kept(tmp_path):
    source = Source("mean", lambda clips: ({"pixel": clips.mean((1, 2, 3))}, clips.mean((1, 2, 3)) * 2), {})
    found = extract(source, clips(Videos(3), views="2x3"), "test", tmp_path, "", True)
    assert found.arrays["start"].shape == (3, 6)
    assert found.arrays["video"].tolist() == ["2.mp4", "1.mp4", "0.mp4"]
    np.testing.assert_allclose(found.feature("pixel")[:, 0], [2.5, 3.5, 4.5])
    np.testing.assert_allclose(found.logits[1, :, 0], 2 * np.arange(1, 7))


def test_mirrored_views_stand_behind_the_others(tmp_path):
    """Five crops and flips: ten views, of which a network sees the last five mirrored."""
    source = Source("ends", lambda clips: ({"left": clips[:, 0, 0, 0]}, clips[:, 0, 0]), {})
    data = Textures()
    found = extract(source, clips(data, 10, views="1xcorners+flip"), "test", tmp_path, "", True)
    (batch,) = data.eval_batches("test", 2, reads=Reads(crops=5, corners=True), only=[0, 1])
    first_row = batch.clip[:, :, 0, 0]
    np.testing.assert_array_equal(found.logits, np.concatenate([first_row, first_row[:, :, ::-1]], axis=1))
    assert found.arrays["box"].shape == (2, 10, 4)
    assert clips(data, 10, views="1xcorners+flip").videos == 1


@pytest.mark.parametrize(
    ("name", "expected", "count"),
    [
        ("10x3", (10, 3, False, False), 30),
        ("2x3+flip", (2, 3, False, True), 12),
        ("1xcorners", (1, 5, True, False), 5),
        ("10xcorners+flip", (10, 5, True, True), 100),
    ],
)
def test_views_have_names(name, expected, count):
    assert parse_views(name) == expected
    assert parse_views(name).count == count


@pytest.mark.parametrize("name", ["10", "0x1", "1xcorner", "1x1flip", "corners"])
def test_other_names_of_views_are_refused(name):
    with pytest.raises(ConfigError, match=f"views: found '{name}', must be clips x squares"):
        parse_views(name)


def test_an_extraction_goes_on_where_it_was(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "CLIPS_A_FILE", 4)
    videos = Videos(11)
    broken = itertools.count()

    def encode(clips):
        if next(broken) == 2:
            raise KeyboardInterrupt
        return SOURCE.encode(clips)

    with pytest.raises(KeyboardInterrupt):
        extract(dataclasses.replace(SOURCE, encode=encode), clips(videos), "test", tmp_path, "", True)
    assert len(videos.read) == 11
    whole = extract(SOURCE, clips(Videos(11)), "test", tmp_path / "whole", "", True)
    videos.read.clear()
    found = extract(SOURCE, clips(videos), "test", tmp_path, "", True)
    assert videos.read == [5, 2, 1, 0]  # what could not be read may have been mended
    np.testing.assert_array_equal(found.feature("pixel"), whole.feature("pixel"))
    videos.read.clear()
    extract(SOURCE, clips(videos, batch_size=3), "test", tmp_path, "", True)
    assert videos.read == [5]


def test_features_of_something_else_are_made_anew(tmp_path, capsys):
    extract(SOURCE, clips(Videos(3)), "test", tmp_path, "", True)
    other = Source("mean", lambda clips: ({"pixel": clips.mean((1, 2, 3)) + 1}, None), {"network": "b"})
    found = extract(other, clips(Videos(3)), "test", tmp_path, "", True)
    assert found.feature("pixel")[0, 0] == 1
    assert "of another network, or of other clips: made anew" in capsys.readouterr().err
    videos = Videos(3)
    found = extract(SOURCE, clips(videos), "test", tmp_path, "reversed", True)
    assert len(videos.read) == 3


def test_damage_is_named(tmp_path):
    extract(SOURCE, clips(Videos(3)), "test", tmp_path, "", True)
    folder = tmp_path / "mean-test-1x1"
    path = folder / "00000.npz"
    whole = path.read_bytes()
    place = whole.index(np.float32([2, 2, 2, 1, 1, 1, 0, 0, 0]).tobytes()) + 2
    path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
    with pytest.raises(
        FeatureError, match=r"00000\.npz: features cannot be read .*delete .*mean-test-1x1 and evaluate"
    ):
        extract(SOURCE, clips(Videos(3)), "test", tmp_path, "", True).feature("pixel")
    path.write_bytes(whole[:100])
    with pytest.raises(FeatureError, match="cannot be read"):
        extract(SOURCE, clips(Videos(3)), "test", tmp_path, "", True)
    (folder / "about.json").write_text("{")
    with pytest.raises(FeatureError, match="about.json is damaged"):
        extract(SOURCE, clips(Videos(3)), "test", tmp_path, "", True)


def test_a_file_that_is_gone_is_made_anew_beside_the_others(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "CLIPS_A_FILE", 2)
    extract(SOURCE, clips(Videos(5, broken=9), batch_size=2), "test", tmp_path, "", True)
    (tmp_path / "mean-test-1x1" / "00000.npz").unlink()
    videos = Videos(5, broken=9)
    found = extract(SOURCE, clips(videos, batch_size=2), "test", tmp_path, "", True)
    assert videos.read == [4, 3] and found.index.tolist() == [0, 1, 2, 3, 4]


def test_class_scores_may_be_all_that_is_kept(tmp_path):
    source = Source("mean", lambda clips: ({"pixel": clips.mean((1, 2, 3))}, clips.mean((1, 2, 3))), {})
    found = extract(source, clips(Videos(3), views="2x1"), "test", tmp_path, "", False)
    assert found.names == [] and found.logits.shape == (3, 2, 3)


def test_a_networks_features_leave_out_the_frame_that_is_paired_with_itself():
    method = tiny.hcml()
    variables, clip = tiny.init(method), tiny.batch(2).clip[:, 0]
    encoder = make_encoder(method, ("1x1", "Tx1x1", "2x2"))
    features, logits = network("net", variables, encoder, ("1x1",)).encode(clip)
    encoded = method.encode(variables, clip)
    assert logits.shape == (2, 3)
    last = np.asarray(encoded.last)
    np.testing.assert_allclose(features["backbone/1x1"], features["backbone"], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(features["backbone/Tx1x1"], last.mean((2, 3)).reshape(2, -1), rtol=1e-4, atol=1e-6)
    for level, motion in encoded.maps.items():
        seen = np.asarray(motion)[:, :-1]
        np.testing.assert_allclose(features[level], seen.mean((1, 2, 3)), rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(features[f"{level}/1x1"], features[level], rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(features[f"{level}/Tx1x1"], seen.mean((2, 3)).reshape(2, -1), rtol=1e-4, atol=1e-6)


def test_the_same_network_is_told_from_another():
    method = tiny.hcml()
    encoder = make_encoder(method, ())
    about = [network("net", tiny.init(method, seed), encoder, ()).about for seed in (0, 0, 1)]
    assert about[0] == about[1] != about[2]


def test_a_baseline_has_its_map_and_its_read_outs():
    clip = tiny.batch(2).clip[:, 0]
    features, logits = baseline("frame_difference", ("Tx1x1", "2x2")).encode(clip)
    assert logits is None
    assert {name: array.shape for name, array in features.items()} == {
        "frame_difference": (2, 64),
        "frame_difference/Tx1x1": (2, 7),
        "frame_difference/2x2": (2, 4),
    }


def test_scores_of_many_views_are_those_of_each_view_alone(tmp_path):
    """10 clips of 3 squares through the network at once, and one by one."""
    method = tiny.hcml()
    variables, encoder = tiny.init(method), make_encoder(method, ())
    data = Textures()
    source = network("net", variables, encoder, ())
    found = extract(source, clips(data, 8, views="10x3"), "test", tmp_path, "", True)
    (batch,) = data.eval_batches("test", 2, reads=Reads(10, crops=3), only=[0, 1])
    for view in range(30):
        alone = method.encode(variables, batch.clip[:, view])
        np.testing.assert_allclose(found.logits[:, view], alone.logits, rtol=1e-3, atol=1e-4)
    each = [method.encode(variables, batch.clip[:, view]).features["level1"] for view in range(30)]
    np.testing.assert_allclose(found.feature("level1"), np.mean(each, axis=0), rtol=1e-3, atol=1e-5)


class Textures(Videos):
    """Two videos of random pixels."""

    clip_shape = tiny.CLIP_SHAPE

    def __init__(self):
        super().__init__(2, broken=9)

    def eval_batches(self, split, batch_size, *, reads=ONE_CLIP, only=None, shard_index=0, num_shards=1):
        for batch in super().eval_batches(split, batch_size, reads=reads, only=only):
            noise = np.stack([np.random.default_rng(row).integers(0, 256, batch.clip.shape[1:]) for row in batch.index])
            yield batch._replace(clip=noise.astype(np.uint8))
