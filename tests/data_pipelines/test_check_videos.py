"""Verdicts on videos, the tables that are written of them, and files that were changed at random."""

import csv
import importlib
from pathlib import Path

import numpy as np
import pytest

from data_pipelines import check_videos
from data_pipelines.clips import segment_frames
from data_pipelines.config import DataConfig
from data_pipelines.isolated import Failed
from data_pipelines.table import Row, read_table, write_table
from data_pipelines.verdict import Verdict, judge
from data_pipelines.video_info import VideoInfo
from data_pipelines.videos import open_videos
from tests.data_pipelines.test_video import set_length_told
from tests.data_pipelines.videos import numbered_frames, write_video

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
NOISE = np.random.default_rng(0).integers(0, 255, (30, 48, 64, 3)).astype(np.uint8)


def damage(path, start):
    """Zeroes what follows a share of a file's pictures."""
    content = bytearray(Path(path).read_bytes())
    first = content.index(b"mdat") + 4
    first += int(start * (len(content) - first))
    content[first : first + 8000] = bytes(8000)
    Path(path).write_bytes(content)


@pytest.fixture
def folder(tmp_path):
    """A good video, one that breaks late, one that breaks early, one whose header errs, and no video at all."""
    write_video(tmp_path / "good.mp4", numbered_frames(12))
    damage(write_video(tmp_path / "late.mp4", NOISE, bf="0"), 0.6)
    damage(write_video(tmp_path / "early.mp4", NOISE, g="30"), 0.1)
    set_length_told(write_video(tmp_path / "longer.avi", numbered_frames(12), codec="mpeg4"), 15)
    (tmp_path / "text.mp4").write_bytes(b"not a video at all" * 99)
    return tmp_path


def run(folder, *flags):
    with pytest.raises(SystemExit) as stopped:
        check_videos.main([str(folder), "--workers", "2", *flags])
    return stopped.value.code


def test_verdicts(folder):
    assert judge(folder / "good.mp4") == Verdict("ok", "", 12, 48, 64, 10.0, "h264")
    longer = judge(folder / "longer.avi")
    assert longer.verdict == "repaired" and longer.frames == 12
    assert longer.reason == f"{folder}/longer.avi: its header tells 15 frames; the 12 that are there are used"
    late = judge(folder / "late.mp4")
    assert late.verdict == "repaired" and 15 <= late.frames < 30 and late.end == late.frames / 10
    assert f"at frame {late.frames} of 30; used up to {late.end:.2f} s" in late.reason
    early = judge(folder / "early.mp4")
    assert early.verdict == "bad" and "early.mp4: cannot be decoded" in early.reason
    assert judge(folder / "text.mp4").reason.startswith(f"{folder}/text.mp4: cannot be decoded")
    assert judge(folder / "gone.mp4").reason == f"{folder}/gone.mp4: no such file"


def test_the_clean_table_is_one_that_trains(folder, capsys):
    assert run(folder) == 1
    told = capsys.readouterr()
    assert "1 ok, 2 repaired, 2 bad; 3 of 5 rows are left" in told.out
    assert told.err.count("\nbad: ") + told.err.startswith("bad: ") == 2
    with (folder / "checked/report.csv").open() as file:
        report = {Path(row["path"]).name: row for row in csv.DictReader(file)}
    assert {name: row["verdict"] for name, row in report.items()} == {
        **{"good.mp4": "ok", "late.mp4": "repaired", "longer.avi": "repaired", "early.mp4": "bad", "text.mp4": "bad"}
    }
    size = (folder / "good.mp4").stat().st_size
    good = ("12", "48", "64", "10", "h264", "", str(size))
    assert tuple(report["good.mp4"].values())[3:] == good
    config = DataConfig(
        str(folder), table="checked/table.csv", frames=2, stride=1, crop=32, short_side=(32, 32), short_clips="loop"
    )
    data = open_videos(config)
    assert data.num_clips("train") == 3
    for batch in (next(data.train_batches(3, seed=seed, stage="s")) for seed in range(20)):
        assert batch.valid.all()  # no frame behind the fault is ever drawn


@pytest.mark.parametrize("rate", [30, 24, 12])
def test_a_clean_row_ends_before_the_fault_at_any_rate(tmp_path, rate):
    """A last frame is not taken in by the rounding of its time."""
    for found in range(15, 30):
        verdict = Verdict("repaired", "", found, fps=float(rate), end=found / rate)
        (row,) = check_videos.clean([Row(0, tmp_path / "a.mp4", "", "train")], {tmp_path / "a.mp4": verdict})
        (tmp_path / "a.mp4").touch()
        write_table(tmp_path / "table.csv", [row], tmp_path)
        (again,) = read_table(tmp_path)
        assert segment_frames(again, VideoInfo(30, 64, 48, float(rate))) == (0, found)


def test_rows_that_lie_behind_the_fault_are_left_out(folder):
    end = judge(folder / "late.mp4").end
    lines = ["path,label,split,start,end,family", f"late.mp4,a,train,{end + 0.1},2.9,f", "late.mp4,b,train,0.5,2.9,f"]
    (folder / "table.csv").write_text("\n".join(lines) + "\n")
    assert run(folder) == 0
    (row,) = read_table(folder, "checked/table.csv")
    assert row.path == folder / "late.mp4" and row[2:] == ("b", "train", 0.5, pytest.approx(end), "f", None)


def test_what_is_known_is_not_decoded_again(folder, monkeypatch, capsys):
    run(folder)
    monkeypatch.setattr(check_videos, "Isolated", lambda *a: pytest.fail("decodes") if a[1] > 1 else Nothing())
    before = (folder / "checked/report.csv").read_text()
    assert run(folder) == 1 and (folder / "checked/report.csv").read_text() == before
    write_video(folder / "good.mp4", numbered_frames(9))
    with pytest.raises(AssertionError, match=r"good\.mp4'\)\]"):
        run(folder)


class Nothing:
    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def map(self, values):
        assert not values, values
        return iter(())


def test_what_hangs_is_bad_and_tried_again(folder, monkeypatch):
    class Hangs(Nothing):
        def map(self, values):
            return iter([Failed("took more than 1 s")] * len(values))

    monkeypatch.setattr(check_videos, "Isolated", lambda *a: Hangs())
    found = check_videos.check([folder / "good.mp4"], 1, 1.0, folder / "files.json")
    assert found == {folder / "good.mp4": Verdict("bad", f"{folder}/good.mp4: took more than 1 s")}
    monkeypatch.undo()
    assert check_videos.check([folder / "good.mp4"], 1, 60.0, folder / "files.json").popitem()[1].verdict == "ok"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--table", "gone.csv"], "gone.csv: no such table"),
        (["--workers", "0"], "--workers must be 1 or more"),
        (["--timeout", "0"], "--timeout above 0"),
    ],
)
def test_wrong_flags_are_named(folder, flags, message):
    assert message in run(folder, *flags)
    assert message.startswith("--") or not (folder / "checked").exists()


def test_where_nothing_can_be_used_no_table_is_written(tmp_path):
    (tmp_path / "text.mp4").write_bytes(b"not a video at all" * 99)
    assert "not one video can be used; " in run(tmp_path)
    assert not (tmp_path / "checked/table.csv").exists() and (tmp_path / "checked/report.csv").exists()


def test_files_that_were_changed_at_random_are_all_counted(tmp_path, monkeypatch):
    """What is not bad can be read wherever its verdict says."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    corrupt = importlib.import_module("corrupt_videos")
    rng, sources = np.random.default_rng(0), []
    for name, codec in (("a.mp4", "libx264"), ("a.avi", "mpeg4"), ("a.webm", "libvpx"), ("a.mkv", "libx265")):
        sources.append(Path(write_video(tmp_path / name, numbered_frames(20), codec=codec, g="8")))
    paths = [tmp_path / f"{number}{sources[number % 4].suffix}" for number in range(80)]
    for number, path in enumerate(paths):
        path.write_bytes(corrupt.changed(sources[number % 4].read_bytes(), number % 3, rng))
    verdicts = check_videos.check(paths, 2, 30.0)
    assert verdicts.keys() == set(paths)
    kinds = [verdict.verdict for verdict in verdicts.values()]
    assert 8 < kinds.count("bad") < 72
    for path, verdict in verdicts.items():
        assert verdict.verdict == "bad" or not corrupt.read((path, verdict.frames))
