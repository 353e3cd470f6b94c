"""Preparation by Beam's local runner: as without it, also when it is killed, and from published annotations."""

import signal
import subprocess
import sys
import time

import pytest

from data_pipelines import prepare
from data_pipelines.config import DataConfig
from data_pipelines.prepared.layouts import Layout
from data_pipelines.videos import open_videos
from tests.data_pipelines.test_prepared import contents, one_by_one
from tests.data_pipelines.videos import numbered_frames, write_video

pytestmark = pytest.mark.filterwarnings("ignore:label:DeprecationWarning")  # of this protobuf

FLAGS = "--shard-mb", "0.001", "--workers", "2"


@pytest.fixture
def folder(tmp_path):
    """UCF101 with twelve videos of two classes."""
    folder = tmp_path / "ucf101"
    names = [f"{label}/v_{label}_g{group:02d}_c01" for label in ("Archery", "Biking") for group in range(6)]
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_video(folder / f"{name}.avi", numbered_frames(12), codec="mpeg4", b="2M")
    for fold in (1, 2, 3):
        train, test = names[fold::2], names[1 - fold % 2 :: 2]
        (folder / f"trainlist{fold:02d}.txt").write_text("".join(f"{name}.avi 1\n" for name in train))
        (folder / f"testlist{fold:02d}.txt").write_text("".join(f"{name}.avi\n" for name in test))
    return folder


def command(folder, out, *flags):
    given = "ucf101", str(folder), "--out", str(out), *FLAGS, *flags
    return [sys.executable, "-m", "data_pipelines.prepare", *given]


def run(*arguments):
    return subprocess.run(command(*arguments), check=True, capture_output=True, text=True).stdout


@pytest.mark.parametrize("layout", ["frames", "video"])
def test_beam_writes_what_one_after_another_writes(folder, tmp_path, layout):
    told = run(folder, tmp_path / "beam", "--layout", layout)
    plain = prepare.prepare("ucf101", folder, tmp_path / "plain", Layout(layout), one_by_one, shard_mb=0.001)
    beam = tmp_path / "beam" / plain.relative_to(tmp_path / "plain")
    assert contents(beam) == contents(plain)
    assert f"train with --config.data.root={beam} --config.data.table=fold1.csv" in told
    data = open_videos(DataConfig(str(beam), table="fold2.csv", frames=4, crop=32, short_side=(32, 32)))
    assert next(data.train_batches(4, seed=0, stage="s")).valid.all()


def test_killed_and_begun_again_it_is_the_same_bytes(folder, tmp_path):
    run(folder, tmp_path / "whole")
    with subprocess.Popen(
        command(folder, tmp_path / "killed"), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    ) as job:
        deadline = time.monotonic() + 120
        while len(list((tmp_path / "killed").rglob("*.videos.json"))) < 3 and time.monotonic() < deadline:
            time.sleep(0.02)
        job.send_signal(signal.SIGKILL)
    finished = {path: path.stat().st_mtime_ns for path in (tmp_path / "killed").rglob("*.videos.json")}
    assert 3 <= len(finished) < 12
    run(folder, tmp_path / "killed")
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"folder": "gone"}, "gone: no such folder"),
        ({"flags": ("--quality", "0")}, "quality: found 0"),
        ({"flags": ("--workers", "0")}, "--workers must be 1 or more"),
        ({"dataset": "hmdb51"}, r"no file \*_test_split1.txt"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(folder, tmp_path, change, message):
    where = folder.parent / change["folder"] if "folder" in change else folder
    given = change.get("dataset", "ucf101"), str(where), "--out", str(tmp_path / "out"), *change.get("flags", ())
    with pytest.raises(SystemExit, match=message):
        prepare.main(given)
