"""Prepared videos: the frames that come out are those that went in, in every layout, and the same after a stop."""

import csv
import hashlib
import itertools
from pathlib import Path

import numpy as np
import pytest

from data_pipelines import prepare
from data_pipelines.config import DataConfig
from data_pipelines.errors import DataError
from data_pipelines.prepared.index import Stored, load_index, save_index
from data_pipelines.prepared.layouts import KINDS, Layout, encode
from data_pipelines.prepared.reader import Prepared
from data_pipelines.table import read_table
from data_pipelines.video import read_frames
from data_pipelines.video_info import VideoInfo
from data_pipelines.videos import open_videos
from hcml_jax.batch import Reads
from hcml_jax.config import ConfigError
from tests.data_pipelines.test_check_videos import NOISE, damage
from tests.data_pipelines.videos import numbered_frames, read_numbers, write_video

LINES = [
    "path,label,split",
    "a.mp4,x,train",
    "b/c.avi,y,train",
    "b/d.webm,x,test",
    "bad.mp4,x,train",
    "late.mp4,y,test",
]


@pytest.fixture
def folder(tmp_path):
    """Five videos in two splits: three are whole, one ends early, one is none."""
    folder = tmp_path / "videos"
    (folder / "b").mkdir(parents=True)
    write_video(folder / "a.mp4", numbered_frames(40), bf="2")
    write_video(folder / "b/c.avi", numbered_frames(20, 64, 48), codec="mpeg4", b="2M")
    write_video(folder / "b/d.webm", numbered_frames(24), codec="libvpx", b="1M")
    (folder / "bad.mp4").write_bytes(b"not a video at all" * 99)
    damage(write_video(folder / "late.mp4", NOISE, bf="0"), 0.6)
    (folder / "table.csv").write_text("\n".join(LINES) + "\n")
    return folder


def one_by_one(function, shards):
    for shard in shards:
        function(shard)


def prepared(folder, out, kind="frames", run=one_by_one, shard_mb=256.0, tables=(), **sizes):
    """Without Beam, which `tests/prepare` runs."""
    return prepare.prepare("videos", folder, out, Layout(kind, **sizes), run, shard_mb=shard_mb, tables=tables)


def contents(folder):
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize("kind", KINDS)
def test_frames_are_the_ones_asked_for(folder, tmp_path, kind):
    out = prepared(folder, tmp_path / "out", kind, shard_mb=0.001)
    rows = read_table(out, exists=Prepared(out).exists)
    assert [(row.path.relative_to(out).as_posix(), row.label, row.split) for row in rows] == [
        ("a.mp4", "x", "train"),
        ("b/c.avi", "y", "train"),
        ("b/d.webm", "x", "test"),
        ("late.mp4", "y", "test"),
    ]
    videos = Prepared(out)
    for row, frames, size in zip(rows, (40, 20, 24), ((48, 64), (64, 48), (48, 64)), strict=False):
        info = videos.info(row.path)
        assert (info.num_frames, info.height, info.width, info.fps) == (frames, *size, pytest.approx(10, rel=0.02))
        for indices in ([0], [frames - 1], [3, 9, 15], range(frames), [17, 2, 2]):
            (clip,) = videos.read_clips(row.path, [(indices, info.whole)], info)
            assert read_numbers(clip) == list(indices)
    late = videos.info(rows[3].path)
    assert 15 <= late.num_frames < 30
    (clip,) = videos.read_clips(rows[3].path, [(range(late.num_frames), late.whole)], late)
    np.testing.assert_allclose(clip, read_frames(folder / "late.mp4", range(late.num_frames)), atol=120)


@pytest.mark.parametrize("kind", KINDS)
def test_batches_are_those_of_the_files(folder, tmp_path, kind):
    """The same views of the same videos; pixels to within what storing costs."""
    (folder / "table.csv").write_text("path,label,split\na.mp4,x,train\nb/c.avi,y,train\nb/d.webm,x,test\n")
    out = prepared(folder, tmp_path / "out", kind, quality=98)
    sources = [
        open_videos(DataConfig(str(root), frames=4, stride=2, crop=32, short_side=(36, 44))) for root in (folder, out)
    ]
    assert sources[0].census == sources[1].census
    reads = Reads(clips=3, area=(0.3, 1.0))
    batches = [data.train_batches(2, seed=1, stage="s", reads=reads) for data in sources]
    for files, shards in itertools.islice(zip(*batches, strict=True), 4):
        for name in ("box", "start", "label", "index"):
            np.testing.assert_array_equal(getattr(files, name), getattr(shards, name))
        np.testing.assert_allclose(files.clip.astype(int), shards.clip, atol=10)
        assert np.abs(files.clip.astype(int) - shards.clip).mean() < 2


def test_stopped_and_begun_again_it_is_the_same_bytes(folder, tmp_path):
    small = {"shard_mb": 0.001}
    whole = prepared(folder, tmp_path / "whole", **small)
    written = []

    def stops(function, shards):
        assert len(shards) > 2
        for shard in shards[:2]:
            function(shard)
            written.append(Path(shard.file))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepared(folder, tmp_path / "stopped", run=stops, **small)
    assert not (tmp_path / "stopped" / whole.relative_to(tmp_path / "whole")).exists()
    before = [path.stat().st_mtime_ns for path in written]
    again = prepared(folder, tmp_path / "stopped", run=lambda *a: (one_by_one(*a), kept(written, before)), **small)
    assert contents(again) == contents(whole)
    assert not [path for path in again.parent.iterdir() if path != again]
    assert prepared(folder, tmp_path / "stopped", run=None, **small) == again  # it is there already
    (folder / "table.csv").write_text("\n".join(LINES[:3]) + "\n")
    with pytest.raises(DataError, match="was made of other videos, labels or shards"):
        prepared(folder, tmp_path / "stopped", **small)


def kept(written, before):
    assert [path.stat().st_mtime_ns for path in written] == before


def test_work_that_was_begun_with_other_videos_is_refused(folder, tmp_path):
    def stops(function, shards):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepared(folder, tmp_path / "out", run=stops)
    (folder / "table.csv").write_text("\n".join(LINES[:3]) + "\n")
    with pytest.raises(DataError, match="was made of other videos, labels or shards"):
        prepared(folder, tmp_path / "out")


def test_every_video_is_reported(folder, tmp_path, capsys):
    out = prepared(folder, tmp_path / "out")
    with (out / "report.csv").open() as file:
        report = {row["video"]: row for row in csv.DictReader(file)}
    verdicts = {name: row["verdict"] for name, row in report.items()}
    assert verdicts == {"a.mp4": "ok", "b/c.avi": "ok", "b/d.webm": "ok", "bad.mp4": "bad", "late.mp4": "repaired"}
    assert "bad.mp4: cannot be decoded" in report["bad.mp4"]["reason"]
    printed = capsys.readouterr()
    assert "1 videos are bad and left out, 1 repaired" in printed.out
    assert f"train with --config.data.root={out}" in printed.out
    assert "bad: " in printed.err and "GB are free" in printed.err


def test_it_is_a_dataset_of_tensorflow_datasets(folder, tmp_path):
    import tensorflow_datasets as tfds

    out = prepared(folder, tmp_path / "out", short_side=24)
    builder = tfds.builder_from_directory(out)
    assert {name: split.num_examples for name, split in builder.info.splits.items()}["train"] == 60
    example = builder.as_data_source(split="train")[45]
    assert example["image"].shape == (32, 24, 3)
    assert (example["video"], example["frame"], example["label"]) == (b"b/c.avi", 5, b"y")


def test_several_tables_share_the_videos(folder, tmp_path):
    (folder / "fold1.csv").write_text("path,label,split\na.mp4,x,train\nb/c.avi,x,test\n")
    (folder / "fold2.csv").write_text("path,label,split\nb/c.avi,x,train\na.mp4,x,test\nb/d.webm,x,test\n")
    out = prepared(folder, tmp_path / "out", tables=("fold1.csv", "fold2.csv"))
    for fold, splits in (("fold1.csv", {"train": 1, "test": 1}), ("fold2.csv", {"train": 1, "test": 2})):
        data = open_videos(DataConfig(str(out), table=fold, frames=4, crop=32, short_side=(32, 32)))
        assert {split: data.num_clips(split) for split in data.splits} == splits
        for split, number in splits.items():
            (batch,) = data.eval_batches(split, number)
            assert batch.valid.all()


def test_without_room_nothing_is_written(folder, tmp_path, monkeypatch):
    from data_pipelines.prepared import builder

    monkeypatch.setattr(builder.shutil, "disk_usage", lambda folder: type("", (), {"free": 1000}))
    with pytest.raises(DataError, match="GB are needed, and 1e-06 GB are free"):
        prepared(folder, tmp_path / "out")


def test_a_split_of_which_nothing_can_be_used_is_named(folder, tmp_path):
    (folder / "table.csv").write_text("path,label,split\na.mp4,x,train\nbad.mp4,x,test\n")
    with pytest.raises(DataError, match=r"not one video of split 'test' can be used:\n  .*bad\.mp4: cannot"):
        prepared(folder, tmp_path / "out")


def test_an_index_reads_back_what_was_saved(tmp_path):
    infos = [VideoInfo(9, 64, 48, 10.0, ((0, 5), (4, 9)), 5, 1), VideoInfo(3, 32, 24, 0.0)]
    infos.append(VideoInfo(7, 8, 6, 2.5, ((0, 0),)))
    videos = [Stored(f"{n}.mp4", "ab"[n % 2], 10 * n, info) for n, info in enumerate(infos)]
    save_index(tmp_path / "index.npz", videos)
    index = load_index(tmp_path)
    assert [index.of(video.name, keyframes=True) for video in videos] == videos
    assert "2.mp4" in index and "3.mp4" not in index and not index.of("0.mp4").info.keyframes


def test_a_damaged_folder_is_named(folder, tmp_path):
    out = prepared(folder, tmp_path / "out")
    (out / "index.npz").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"index\.npz: cannot be read"):
        open_videos(DataConfig(str(out)))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": "frame"}, "there is no 'frame'; there are frames, video, original"),
        ({"kind": "frames", "quality": 0}, r"quality: found 0, must be in 1\.\.100"),
        ({"kind": "video", "crf": 52}, "crf: found 52"),
        ({"kind": "video", "keyframe_every": 0}, "keyframe_every: found 0"),
    ],
)
def test_wrong_layouts_are_named(fields, message):
    with pytest.raises(ConfigError, match=message):
        Layout(**fields)


def test_nothing_is_enlarged_and_sides_of_h264_are_even(tmp_path):
    path = write_video(tmp_path / "a.mp4", numbered_frames(4, 70, 102))
    assert encode(path, Layout("frames", short_side=33)).info.whole.size == (33, 48)
    assert encode(path, Layout("video", short_side=33)).info.whole.size == (32, 48)
    assert encode(path, Layout("frames")).info.whole.size == (70, 102)
    assert encode(path, Layout("video", keyframe_every=2)).info.keyframes[1][0] == 2
