"""Batches: their order is a pure function; the broken is named or replaced, the short repeated."""

import itertools
import json
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

import data_pipelines
from data_pipelines import DataConfig, DataError, SpritesConfig
from data_pipelines.video import read_frames
from data_pipelines.write_video import encode
from hcml_jax.batch import Reads, blank_batch
from hcml_jax.config import ConfigError
from tests.data_pipelines.videos import numbered_frames, read_numbers, write_video

LENGTHS = (20, 12, 30, 16, 25, 14, 18)
KEY = {"seed": 0, "stage": "first"}
FLOW = Reads(flow=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Seven videos of 64 x 48; five of split train (classes a, b; one unlabelled), two of test."""
    folder = tmp_path_factory.mktemp("videos")
    labels, splits = "ab-abab", ["train"] * 5 + ["test"] * 2
    lines = ["path,label,split,family"]
    for i, length in enumerate(LENGTHS):
        write_video(folder / f"{i}.mp4", numbered_frames(length))
        label = labels[i].strip("-")
        lines.append(f"{i}.mp4,{label},{splits[i]},{'letters' if label else ''}")
    (folder / "table.csv").write_text("\n".join(lines) + "\n")
    return folder


def open_videos(folder, workdir=None, future=0, **values):
    small = {"frames": 4, "stride": 2, "short_side": (40, 56), "crop": 32, "workers": 2}
    config = DataConfig(**{"root": str(folder), "table": "table.csv", **small, **values})
    return data_pipelines.open_data(config, workdir, future=future)


def take(batches, count):
    return list(itertools.islice(batches, count))


def assert_same(batches, others):
    for batch, other in zip(batches, others, strict=True):
        for value, wanted in zip(batch, other, strict=True):
            np.testing.assert_array_equal(value, wanted)


def test_what_the_data_says_of_itself(folder):
    data = open_videos(folder)
    assert data.classes == ("a", "b") and data.families == {"a": "letters", "b": "letters"}
    assert data.splits == ("train", "test") and data.skipped == {}
    assert (data.num_clips("train"), data.num_clips("test")) == (5, 2)
    assert data.num_clips("train", labelled_only=True) == 4 and data.labelled == {0, 1, 3, 4}
    assert "true flow needs stride 1" in data.flow_fault("train")
    with pytest.raises(DataError, match=r"no clips of split 'tset'.*mean 'test'"):
        data.num_clips("tset")


@pytest.mark.parametrize("reads", [Reads(), Reads(clips=2, area=(0.3, 1.0), future=1)])
def test_a_batch_is_what_the_contract_says(folder, reads):
    data = open_videos(folder, future=1)
    assert data.clip_shape == (4, 32, 32, 3)
    trained = take(data.train_batches(5, **KEY, reads=reads), 1)
    for batch in (*trained, *data.eval_batches("train", 5, reads=reads)):
        for value, blank in zip(batch, blank_batch(5, data.clip_shape, reads), strict=True):
            assert (value is None) == (blank is None)
            assert blank is None or (value.dtype, value.shape) == (blank.dtype, blank.shape)
        assert sorted(batch.index) == [0, 1, 2, 3, 4] and batch.valid.all()
        truth = {0: 0, 1: 1, 2: -1, 3: 0, 4: 1}
        assert [truth[i] for i in batch.index] == batch.label.tolist()
        for clip, start in zip(batch.clip.reshape(-1, 4, 32, 32, 3), batch.start.flat, strict=True):
            assert read_numbers(clip) == [start, start + 2, start + 4, start + 6]
        assert batch.consecutive.all()


def test_warming_up_while_the_first_batch_is_read_changes_nothing(folder):
    data = open_videos(folder)
    data.warm_up()
    assert_same(take(data.train_batches(2, **KEY), 2), take(data.train_batches(2, **KEY), 2))


def test_every_epoch_shows_each_clip_once_in_another_order(folder):
    batches = take(open_videos(folder).train_batches(2, **KEY), 15)
    epochs = np.concatenate([batch.index for batch in batches]).reshape(6, 5)
    assert (np.sort(epochs, axis=1) == np.arange(5)).all()
    assert len({tuple(epoch) for epoch in epochs}) > 2


def test_views_change_from_epoch_to_epoch_and_stay_without_jitter(folder):
    for jitter in (True, False):
        batches = take(open_videos(folder, jitter=jitter).train_batches(5, **KEY), 6)
        starts = {batch.start[list(batch.index).index(2), 0] for batch in batches}
        assert (len(starts) > 2) == jitter


def test_resuming_at_a_step_gives_the_same_batches(folder):
    data, reads = open_videos(folder, cache_mb=0), Reads(clips=2, area=(0.5, 1.0))
    through = take(data.train_batches(4, **KEY, reads=reads), 6)
    later = data.train_batches(4, **KEY, reads=reads, first_step=4)
    assert_same(take(later, 2), through[4:])
    again = open_videos(folder, workers=1).train_batches(4, **KEY, reads=reads)
    assert_same(take(again, 6), through)


@pytest.mark.parametrize("other", [{"seed": 1}, {"stage": "second"}])
def test_seeds_and_stages_have_orders_and_views_of_their_own(folder, other):
    data = open_videos(folder)
    runs = [take(data.train_batches(5, **{**KEY, **key}), 4) for key in ({}, other)]
    orders = [np.stack([batch.index for batch in run]) for run in runs]
    assert (orders[0] != orders[1]).any(axis=1).sum() > 2  # epochs
    views = [np.concatenate([b.box[np.argsort(b.index), 0] for b in run]) for run in runs]
    assert (views[0] != views[1]).any(axis=1).mean() > 0.9


def test_resuming_late_costs_nothing(folder):
    (batch,) = take(open_videos(folder).train_batches(4, **KEY, first_step=10**9), 1)
    assert batch.clip.shape[0] == 4


@pytest.mark.parametrize("shards", [2, 4])
def test_shards_put_together_are_the_global_batch(folder, shards):
    data = open_videos(folder)
    key = {**KEY, "first_step": 2}
    whole = take(data.train_batches(4, **key), 4)
    parts = [take(data.train_batches(4, **key, shard_index=i, num_shards=shards), 4) for i in range(shards)]
    for batch, *step in zip(whole, *parts, strict=True):
        for value, *pieces in zip(batch, *step, strict=True):
            assert value is None or (value == np.concatenate(pieces)).all()


def test_shards_must_divide_the_batch(folder):
    data = open_videos(folder)
    with pytest.raises(ConfigError, match="batch_size: found 5, must divide by 2 shards"):
        data.train_batches(5, **KEY, num_shards=2)
    with pytest.raises(ConfigError, match=r"shard_index: found 2, must be in 0\.\.1"):
        data.train_batches(4, **KEY, num_shards=2, shard_index=2)


def test_few_labels_hide_the_others_from_training_only(folder):
    data = open_videos(folder, labels_per_class=1)
    assert data.num_clips("train", labelled_only=True) == 2
    (batch,) = take(data.train_batches(5, **KEY), 1)
    pairs = zip(batch.index, batch.label, strict=True)
    shown = {index: label for index, label in pairs if label >= 0}
    assert len(shown) == 2 and set(shown.values()) == {0, 1} and data.labelled == set(shown)
    for batch in take(data.train_batches(2, **KEY, labelled_only=True), 3):
        assert dict(zip(batch.index, batch.label, strict=True)) == shown
    (batch,) = data.eval_batches("train", 5)
    assert batch.label.tolist() == [0, 1, -1, 0, 1]


def test_a_share_of_the_training_clips_may_be_held_out(folder):
    data = open_videos(folder, validation_share=0.5, labels_per_class=1)
    assert set(data.splits) == {"train", "validation", "test"}
    (batch,) = data.eval_batches("validation", 2)  # of a and b one each, of the unlabelled none
    assert batch.label.tolist() == [0, 1] and batch.valid.all()
    left = {0, 1, 2, 3, 4} - set(batch.index.tolist())
    assert {row.index for row in data.rows("train")} == left
    assert data.labelled == left - {2} and data.census != open_videos(folder).census


def test_training_on_labels_needs_labels(folder, tmp_path):
    for video in folder.glob("*.mp4"):
        (tmp_path / video.name).symlink_to(video)
    data = open_videos(tmp_path, table="")
    assert data.num_clips("train") == 7 and data.classes == ()
    with pytest.raises(DataError, match="split 'train' has no labelled clips"):
        data.train_batches(2, **KEY, labelled_only=True)
    with pytest.raises(DataError, match="no clips of split 'test'"):
        data.eval_batches("test", 2)


def test_evaluation_passes_once_in_table_order_from_the_middle(folder):
    batches = list(open_videos(folder).eval_batches("train", 3))
    assert [batch.index.tolist() for batch in batches] == [[0, 1, 2], [3, 4, 4]]
    assert [batch.valid.tolist() for batch in batches] == [[True] * 3, [True, True, False]]
    assert batches[1].clip.shape == (3, 1, 4, 32, 32, 3)
    for i, clip in enumerate(np.concatenate([batch.clip for batch in batches])[:5, 0]):
        first = (LENGTHS[i] - 7) // 2
        assert read_numbers(clip) == [first, first + 2, first + 4, first + 6]


def test_evaluation_may_show_some_clips_alone_spread_over_the_split(folder):
    data = open_videos(folder)
    assert data.spread("train", 3) == [0, 2, 4] and data.spread("test", 9) == [5, 6]
    (batch,) = data.eval_batches("train", 3, only=[4, 0, 2])
    assert batch.index.tolist() == [4, 0, 2] and batch.valid.all()


def test_the_frames_behind_a_clip_follow_it(folder):
    data, reads = open_videos(folder, future=2, stride=1), Reads(clips=2, future=2)
    batches = [*take(data.train_batches(5, **KEY, reads=reads), 2), *data.eval_batches("train", 5)]
    for batch in batches[:2]:
        shown = np.concatenate([batch.clip, batch.future], axis=2)
        for clip, start in zip(shown.reshape(-1, 6, 32, 32, 3), batch.start.flat, strict=True):
            assert read_numbers(clip) == list(range(start, start + 6))
    assert batches[2].future is None
    with pytest.raises(ValueError, match="open_data was told of 2 frames behind a clip"):
        data.train_batches(5, **KEY, reads=Reads(future=3))
    with pytest.raises(DataError, match="12 frames, but a clip with the 3 frames behind it spans 13"):
        open_videos(folder, future=3)


def test_non_random_views_are_held_in_memory_alone_and_cropped(folder):
    data = open_videos(folder, future=1)
    take(data.train_batches(5, **KEY), 2)
    held = data._reader._cache._held
    assert not held
    for reads in (Reads(), Reads(clips=2), Reads(future=1), Reads(max_offset=1)):
        take(data.eval_batches("train", 5, reads=reads), 1)
    frames = [clips.shape[:2] for clips in held.values()]
    assert frames == [(1, 4)] * 5 + [(2, 4)] * 5 + [(1, 5)] * 5
    assert {clips.shape[2:] for clips in held.values()} == {(32, 32, 3)}


@pytest.fixture
def wedge(tmp_path):
    """A video of 64 x 48 whose red is three times the column, its blue three times the row."""
    y, x = np.mgrid[:48, :64]
    frame = np.stack([3 * x, 0 * x + 90, 3 * y], axis=-1)
    write_video(tmp_path / "a.mp4", np.stack([frame] * 6).astype(np.uint8), crf="1", pix_fmt="yuv444p")
    return tmp_path


def test_frames_are_cropped_where_the_view_says(wedge):
    data = open_videos(wedge, table="", stride=1, short_side=(48, 48), crop=40)
    (batch,) = data.eval_batches("train", 1)
    assert batch.box.tolist() == [[[4, 12, 40, 40]]]
    frames = read_frames(wedge / "a.mp4", range(1, 5))
    np.testing.assert_array_equal(batch.clip[0, 0], frames[:, 4:44, 12:52])


def test_evaluation_crops_run_along_the_longer_side(wedge):
    data = open_videos(wedge, table="", stride=1, short_side=(48, 48), crop=16)
    reads = Reads(clips=2, crops=3, crop=48, short_side=48)
    (batch,) = data.eval_batches("train", 1, reads=reads)
    boxes = [[0, left, 48, 48] for left in (0, 8, 16)]
    assert batch.box.tolist() == [boxes * 2]
    assert batch.start.tolist() == [[0, 0, 0, 1, 1, 1]]
    frames = read_frames(wedge / "a.mp4", range(6))
    for view, (start, (_, left, *_)) in enumerate(zip(batch.start[0], batch.box[0], strict=True)):
        shown = frames[start : start + 4, :, int(left) : int(left) + 48]
        np.testing.assert_array_equal(batch.clip[0, view], shown)


def test_five_crops_are_the_corners_and_the_middle(wedge):
    data = open_videos(wedge, table="", stride=1, short_side=(48, 48), crop=16)
    (batch,) = data.eval_batches("train", 1, reads=Reads(clips=2, crops=5, corners=True))
    boxes = [[0, 0], [0, 48], [32, 0], [32, 48], [16, 24]]
    assert batch.box.tolist() == [[[*corner, 16, 16] for corner in boxes] * 2]
    assert batch.start.tolist() == [[0] * 5 + [1] * 5]
    frames = read_frames(wedge / "a.mp4", range(5))
    np.testing.assert_array_equal(batch.clip[0, 8], frames[1:5, 32:48, 48:64])


def test_evaluation_crops_may_be_of_a_size_of_their_own(wedge):
    """Half as large a frame: as if the data had been configured so."""
    data = open_videos(wedge, table="", stride=1, short_side=(48, 48), crop=40)
    small = open_videos(wedge, table="", stride=1, short_side=(24, 24), crop=20)
    (found,), (expected,) = (
        source.eval_batches("train", 1, reads=reads)
        for source, reads in ((data, Reads(crop=20, short_side=24)), (small, Reads()))
    )
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    assert found.clip.shape == (1, 1, 4, 20, 20, 3)


@pytest.mark.parametrize("area", [None, (0.2, 1.0)])
def test_a_random_clip_is_the_box_of_the_frame_resized(wedge, area):
    """Its colours tell which part of the frame is seen; Pillow makes the same of the box."""
    data = open_videos(wedge, table="", stride=1)
    frame = Image.fromarray(read_frames(wedge / "a.mp4", [0])[0])
    reads = Reads(clips=8, area=area)
    (batch,) = take(data.train_batches(1, **KEY, reads=reads), 1)
    assert len({tuple(box) for box in batch.box[0]}) > 4
    for clip, (top, left, height, width) in zip(batch.clip[0], batch.box[0], strict=True):
        corners = left, top, left + width, top + height
        expected = np.asarray(frame.resize((32, 32), Image.Resampling.BILINEAR, corners))
        np.testing.assert_allclose(clip[0].astype(int), expected, atol=2)
        centres = (np.arange(32) + 0.5) / 32
        x, y = clip[0, ..., 0].mean(0) / 3 + 0.5, clip[0, ..., 2].mean(1) / 3 + 0.5
        np.testing.assert_allclose(x, left + width * centres, atol=0.4)
        np.testing.assert_allclose(y, top + height * centres, atol=0.4)


def test_short_videos_are_listed_or_begin_again(folder):
    with pytest.raises(DataError, match="2 of 7 clips cannot be used") as caught:
        open_videos(folder, stride=5)
    assert "1.mp4: 12 frames, but a clip spans 16" in str(caught.value)
    data = open_videos(folder, future=1, stride=5, short_clips="loop")
    (batch,) = data.eval_batches("train", 5, reads=Reads(future=1))
    assert read_numbers(batch.clip[1, 0]) == [0, 5, 10, 3]
    assert read_numbers(batch.future[1, 0]) == [8]
    assert batch.consecutive[:, 0].tolist()[1:3] == [[True, True, False, True], [True] * 4]


def test_a_part_of_a_video_is_shown_by_its_seconds(folder, tmp_path):
    for name, start, end in (("in", 0.9, 2.0), ("out", 7.0, 8.0)):
        row = f"{folder / '2.mp4'},a,train,{start},{end}"
        (tmp_path / f"{name}.csv").write_text(f"path,label,split,start,end\n{row}\n")
    data = open_videos(tmp_path, table="in.csv", frames=11, stride=1)  # frames 9..19 at 10 a second
    (batch,) = data.eval_batches("train", 1)
    assert read_numbers(batch.clip[0, 0]) == list(range(9, 20))
    with pytest.raises(DataError, match=r"no frames from 7 s to 8 s of 3\.00 s"):
        open_videos(tmp_path, table="out.csv")


@pytest.fixture
def good(folder, tmp_path):
    """A folder of four good videos."""
    (tmp_path / "videos").mkdir()
    for i in (0, 2, 3, 4):
        (tmp_path / "videos" / f"{i}.mp4").write_bytes((folder / f"{i}.mp4").read_bytes())
    return tmp_path / "videos"


@pytest.fixture
def broken(good):
    """A folder of four good videos and two that are none."""
    (good / "1.mp4").write_bytes(b"")
    (good / "5.mp4").write_bytes(b"nonsense" * 99)
    return good


def test_bad_videos_are_listed_before_training(broken):
    with pytest.raises(DataError, match="2 of 6 clips cannot be used") as caught:
        open_videos(broken, table="")
    assert "1.mp4: the file is empty" in str(caught.value)
    assert "5.mp4: cannot be decoded" in str(caught.value)


def test_bad_videos_may_be_left_out_and_are_written_down(broken, tmp_path, capsys):
    data = open_videos(broken, tmp_path / "run", table="", skip_bad=True)
    assert data.num_clips("train") == 4
    assert [row.index for row in data.rows("train")] == [0, 2, 3, 4]  # rows keep their numbers
    listed = tmp_path / "run/skipped.jsonl"
    lines = [json.loads(line) for line in listed.read_text().splitlines()]
    assert {line["row"] - 1: line["reason"] for line in lines} == data.skipped
    open_videos(broken, tmp_path / "run", table="", skip_bad=True)
    assert len(listed.read_text().splitlines()) == 2
    assert sorted(Path(line["path"]).name for line in lines) == ["1.mp4", "5.mp4"]
    assert "2 of 6 clips cannot be used" in capsys.readouterr().err


def test_a_folder_of_bad_videos_cannot_be_left_out(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"")
    with pytest.raises(DataError, match="1 of 1 clips cannot be used"):
        open_videos(tmp_path, table="", skip_bad=True)


def test_a_video_that_breaks_later_is_replaced_by_the_next_and_recorded_once(good, tmp_path):
    data = open_videos(good, tmp_path / "run", table="", cache_mb=0, skip_bad=True, future=1)
    expected = np.concatenate([b.index for b in take(data.train_batches(4, **KEY), 8)])
    (good / "2.mp4").write_bytes(b"nonsense" * 99)
    shown = np.concatenate([b.index for b in take(data.train_batches(4, **KEY), 8)])
    epochs = zip(shown.reshape(8, 4), expected.reshape(8, 4), strict=True)
    for epoch, intact in epochs:
        for place in range(4):
            index = intact[place] if intact[place] != 1 else intact[(place + 1) % 4]
            assert epoch[place] == index
    assert len((tmp_path / "run/skipped.jsonl").read_text().splitlines()) == len(data.skipped) == 1
    (batch,) = data.eval_batches("train", 4, reads=Reads(clips=2, future=1))
    assert batch.valid.tolist() == [True, False, True, True]
    for field in (batch.clip, batch.future, batch.box, batch.start, batch.consecutive):
        assert not field[1].any() and field[2].any()
    assert batch.index.tolist() == [0, 1, 2, 3] and batch.label.tolist() == [-1] * 4


def test_a_video_that_breaks_later_stops_the_run_unless_bad_ones_may_be_left_out(good):
    data = open_videos(good, table="", cache_mb=0)
    (good / "2.mp4").write_bytes(b"nonsense" * 99)
    for batches in (data.train_batches(4, **KEY), data.eval_batches("train", 4)):
        with pytest.raises(DataError, match="2.mp4: cannot be decoded.*skip_bad=True"):
            next(batches)


def test_videos_are_looked_at_once_and_again_when_they_change(good, tmp_path, monkeypatch):
    looked = []
    probe = data_pipelines.videos.scan_videos.__globals__["probe"]
    monkeypatch.setattr("data_pipelines.scan.probe", lambda p: looked.append(p.name) or probe(p))
    first = open_videos(good, tmp_path / "run", table="")
    assert sorted(looked) == ["0.mp4", "2.mp4", "3.mp4", "4.mp4"]
    again = open_videos(good, tmp_path / "run", table="")
    assert len(looked) == 4
    assert again._reader._infos == first._reader._infos
    write_video(good / "3.mp4", numbered_frames(9))
    open_videos(good, tmp_path / "run", table="")
    assert looked[4:] == ["3.mp4"]
    (tmp_path / "run/videos.json").write_text("{ half a fi")
    open_videos(good, tmp_path / "run", table="")
    assert len(looked) == 9


def test_decoded_clips_are_held_until_memory_is_full(folder, monkeypatch):
    from data_pipelines import clips

    calls = []
    read = clips.read_clips
    monkeypatch.setattr(clips, "read_clips", lambda *a: calls.append(a) or read(*a))
    for size_mb, reads in ((256, 5), (0, 10)):
        data = open_videos(folder, cache_mb=size_mb)
        calls.clear()
        once, again = (list(data.eval_batches("train", 5)) for _ in range(2))
        assert_same(again, once)
        assert len(calls) == reads


@pytest.fixture
def moving(tmp_path):
    """A smooth texture of 96 x 64 that moves by (2, -1) pixels a frame, with its flow."""
    y, x = np.mgrid[:64, :96]
    time = np.arange(8)[:, None, None]
    x, y = x - 2 * time, y + time
    wave = np.cos(x / 4 + y / 7) + np.cos(y / 5 - x / 9)
    frames = np.repeat(np.round(128 + 55 * wave)[..., None], 3, -1).astype(np.uint8)
    encode(frames, tmp_path / "a.mp4", crf=1, rate=8)
    np.savez(tmp_path / "a.npz", flow=np.broadcast_to([2.0, -1.0], (7, 64, 96, 2)))
    (tmp_path / "table.csv").write_text("path,label,split,flow\na.mp4,x,train,a.npz\n")
    return tmp_path


def linear_flow(moving):
    """Writes flow (x, y) / 8 + t, x and y in pixels."""
    y, x = np.mgrid[:64, :96]
    flow = np.broadcast_to(np.stack([x, y], -1) / 8, (7, 64, 96, 2))
    np.savez(moving / "a.npz", flow=flow + np.arange(7)[:, None, None, None])


def test_flow_is_resized_scaled_and_cropped_like_its_frames(moving):
    data = open_videos(moving, frames=4, stride=1, short_side=(48, 48), crop=36)
    (batch,) = data.eval_batches("train", 1, reads=FLOW)
    np.testing.assert_allclose(batch.flow, np.broadcast_to([1.5, -0.75], (1, 1, 3, 36, 36, 2)))
    # 2 frames later the picture has moved by whole pixels (3, -1.5): 4 frames would leave the crop
    clip = batch.clip[0, 0].astype(float)
    back = (clip[2, :-2, 3:] + clip[2, 1:-1, 3:])[:-1] / 2  # at (x + 3, y - 1.5)
    np.testing.assert_allclose(back, clip[0, 2:-1, :-3], atol=6)
    assert np.abs(clip[2] - clip[0]).mean() > 15


@pytest.mark.parametrize("future", [0, 1])
def test_flow_lies_where_its_pixels_are(moving, future):
    linear_flow(moving)
    data = open_videos(moving, frames=3 - future, stride=1, short_side=(32, 32), crop=20, future=future)
    (batch,) = data.eval_batches("train", 1, reads=Reads(flow=True, future=future))
    assert batch.flow.shape == (1, 1, 2, 20, 20, 2)
    rows, columns = np.mgrid[6:26, 14:34] * 2 + 0.5  # centres of pixels half as fine
    for t in range(2):
        expected = (np.stack([columns, rows], -1) / 8 + batch.start[0, 0] + t) / 2
        np.testing.assert_allclose(batch.flow[0, 0, t], expected, atol=1e-4)


def test_flow_of_a_random_share_of_the_frame_is_that_of_its_box(moving):
    linear_flow(moving)
    data, reads = open_videos(moving, frames=3, stride=1), Reads(8, (0.2, 0.6), flow=True)
    (batch,) = take(data.train_batches(1, **KEY, reads=reads), 1)
    for flow, box, start in zip(batch.flow[0], batch.box[0], batch.start[0], strict=True):
        centres = box[:2, None] + box[2:, None] * (np.arange(32) + 0.5) / 32 - 0.5  # y, x
        scale = 32 / box[[3, 2]]
        for t in range(2):
            u, v = np.broadcast_arrays(centres[1], centres[0][:, None])
            expected = (np.stack([u, v], -1) / 8 + start + t) * scale
            inner = slice(3, -3)  # at the frame's edge the filter is cut off
            np.testing.assert_allclose(flow[t, inner, inner], expected[inner, inner], atol=0.01)


@pytest.mark.parametrize("side", [64, 40])
def test_flow_in_training_is_that_in_evaluation_of_the_same_view(moving, side):
    linear_flow(moving)
    sizes = {"frames": 3, "stride": 1, "short_side": (side, side), "crop": 32, "jitter": False}
    data = open_videos(moving, **sizes)
    (trained,) = take(data.train_batches(1, **KEY, reads=FLOW), 1)
    assert_same([trained], list(data.eval_batches("train", 1, reads=FLOW)))
    if side == 64:  # as it is
        with np.load(moving / "a.npz") as file:
            whole = file["flow"].astype(np.float32)
        np.testing.assert_array_equal(trained.flow[0, 0], whole[2:4, 16:48, 32:64])


def test_flow_may_be_computed_of_the_frames_that_are_shown(moving):
    """Of any stride, in pixels of what is shown, without files of it."""
    data = open_videos(moving, frames=3, stride=2, flow="dis", short_side=(64, 64), crop=64)
    assert data.flow_fault("train") is None and not data.flow_is_true
    (batch,) = data.eval_batches("train", 1, reads=FLOW)
    inner = batch.flow[0, 0, :, 16:-16, 16:-16].mean((1, 2))
    np.testing.assert_allclose(inner, [(4, -2)] * 2, atol=0.2)
    (batch,) = take(data.train_batches(1, **KEY, reads=Reads(clips=2, area=(0.3, 0.5), flow=True)), 1)
    for flow, box in zip(batch.flow[0], batch.box[0], strict=True):
        expected = np.float32([4, -2]) * 64 / box[[3, 2]]
        np.testing.assert_allclose(flow[:, 16:-16, 16:-16].mean((1, 2)), [expected] * 2, rtol=0.1, atol=0.2)


def test_headers_of_flow_are_parsed_by_one_thread_at_a_time(moving, monkeypatch):
    load, inside, most = np.load, [], []

    def slow_load(file):
        inside.append(file)
        time.sleep(0.01)
        most.append(len(inside))
        inside.pop()
        return load(file)

    monkeypatch.setattr(np, "load", slow_load)
    data = open_videos(moving, frames=3, stride=1, workers=4, cache_mb=0)
    for _ in range(2):
        next(data.train_batches(8, **KEY, reads=FLOW))
    assert len(most) > 8 and max(most) == 1


def test_flow_needs_files_consecutive_frames_and_the_right_shape(folder, moving):
    loop = {"frames": 9, "stride": 1, "short_clips": "loop"}
    for where, fields in ((folder, {"stride": 1}), (moving, {"stride": 2}), (moving, loop)):
        data = open_videos(where, **fields)
        assert data.flow_fault("train")
        with pytest.raises(DataError, match="no flow of . clips of split 'train'"):
            data.eval_batches("train", 1, reads=FLOW)
        with pytest.raises(DataError, match="no flow of . clips of split 'train'"):
            data.train_batches(1, **KEY, reads=FLOW)
    np.savez(moving / "a.npz", flow=np.zeros((8, 64, 96, 2)))
    data = open_videos(moving, frames=3, stride=1)
    assert data.flow_fault("train") is None
    with pytest.raises(DataError, match=r"flow has shape \(8, 64, 96, 2\), its video needs \(7,"):
        take(data.eval_batches("train", 1, reads=FLOW), 1)
    (moving / "a.npz").write_bytes((moving / "a.npz").read_bytes()[:99])
    with pytest.raises(DataError, match="no array 'flow' can be read"):
        take(data.eval_batches("train", 1, reads=FLOW), 1)
    np.savez(moving / "a.npz", motion=np.zeros(3))
    with pytest.raises(DataError, match="no array 'flow' can be read"):
        take(data.eval_batches("train", 1, reads=FLOW), 1)


def test_sprites_are_written_and_then_read_like_any_folder(tmp_path):
    classes = ("zoom_out", "approach")
    sizes = {"train_per_class": 2, "test_per_class": 1, "val_per_class": 1}
    sprites = SpritesConfig(classes=classes, **sizes)
    sizes = {"frames": 8, "stride": 1, "short_side": (48, 48), "crop": 48}
    config = DataConfig(root=str(tmp_path / "sprites"), sprites=sprites, **sizes)
    data = data_pipelines.open_data(config)
    assert data.classes == classes  # the config's order, not the alphabet's
    assert data.families == {"zoom_out": "elementary", "approach": "relational"}
    assert data.splits == ("train", "test", "val")
    (batch,) = data.eval_batches("test", 2, reads=FLOW)
    assert batch.clip.shape == (2, 1, 8, 48, 48, 3) and batch.flow.shape == (2, 1, 7, 48, 48, 2)
    assert batch.label.tolist() == [0, 1]
    by_hand = data_pipelines.open_data(DataConfig(config.root, table="table.csv", **sizes))
    assert by_hand.classes == ("approach", "zoom_out")


@pytest.mark.parametrize("ending", ["pass", "raise SystemExit('stopped')", "raise ValueError"])
def test_python_ends_in_the_middle_of_an_epoch(folder, ending):
    config = {"root": str(folder), "frames": 4, "short_side": (256, 256), "cache_mb": 0}
    code = (
        f"from data_pipelines import *; data = open_data(DataConfig(**{config}))\n"
        f"batches = data.train_batches(2, **{KEY}); next(batches)\n"
        f"others = data.eval_batches('train', 1); next(others)\n{ending}"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == (0 if ending == "pass" else 1), done.stderr
    assert "Python is ending" not in done.stderr
