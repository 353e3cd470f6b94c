"""Annotations as they are published, small: what tables are made of them, and what is said of those that differ."""

import json
from collections import Counter

import pytest

from data_pipelines import annotate
from data_pipelines.config import DataConfig
from data_pipelines.datasets import DATASETS
from data_pipelines.errors import DataError
from data_pipelines.table import read_table
from data_pipelines.videos import open_videos
from tests.data_pipelines.videos import numbered_frames, write_video


def touch(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"a video")


def write(folder, **files):
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text if isinstance(text, str) else json.dumps(text))


def told(rows, folder):
    return [(str(row.path.relative_to(folder)), row.label, row.split) for row in rows]


@pytest.fixture
def ucf101(tmp_path):
    touch(tmp_path, *(f"UCF-101/Archery/v_Archery_g0{g}_c01.avi" for g in (1, 2, 8)))
    for fold in (1, 2, 3):
        lists = {
            "trainlist": "Archery/v_Archery_g08_c01.avi 1\r\nArchery/v_Archery_g09_c01.avi 1\r\n",
            "testlist": "Archery/v_Archery_g01_c01.avi\nArchery/v_Archery_g02_c01.avi\n",
        }
        write(tmp_path, **{f"ucfTrainTestlist/{name}{fold:02d}.txt": text for name, text in lists.items()})
    return tmp_path


def test_ucf101(ucf101):
    found = DATASETS["ucf101"](ucf101)
    assert [*found.tables] == ["fold1", "fold2", "fold3"]
    assert told(found.tables["fold2"], ucf101) == [
        ("UCF-101/Archery/v_Archery_g08_c01.avi", "Archery", "train"),
        ("UCF-101/Archery/v_Archery_g01_c01.avi", "Archery", "test"),
        ("UCF-101/Archery/v_Archery_g02_c01.avi", "Archery", "test"),
    ]
    assert found.missing == ["Archery/v_Archery_g09_c01"]
    assert found.notes[:3] == [
        "fold1: 2 videos of split 'train' are annotated; 9537 are published",
        "fold1: 2 videos of split 'test' are annotated; 3783 are published",
        "fold1: 1 classes are annotated; 101 are published",
    ]


def test_hmdb51(tmp_path):
    """Names of videos have spaces and other signs, and occur in two classes."""
    touch(tmp_path, "run/a b_[x].avi", "walk/a b_[x].avi", "walk/c.avi")
    for fold in (1, 2, 3):
        write(tmp_path, **{f"splits/run_test_split{fold}.txt": "a b_[x].avi 1 \nother.avi 0 \n"})
        write(tmp_path, **{f"splits/walk_test_split{fold}.txt": f"a b_[x].avi {fold % 3} \nc.avi 2 \n"})
    found = DATASETS["hmdb51"](tmp_path)
    first = [("run/a b_[x].avi", "run", "train"), ("walk/a b_[x].avi", "walk", "train"), ("walk/c.avi", "walk", "test")]
    assert told(found.tables["fold1"], tmp_path) == first
    assert told(found.tables["fold3"], tmp_path) == [first[0], first[2]]
    assert not found.missing


def test_kinetics_in_csv(tmp_path):
    touch(tmp_path, "train/air drumming/-abc_d_00000_000084_000094.mp4", "val/xyz.mkv", "test/t_000001_000011.mp4")
    write(
        tmp_path,
        **{
            "train.csv": 'label,youtube_id,time_start,time_end,split,is_cc\n"air drumming",-abc_d_00000,84,94,train,0\n'
            "archery,gone,1,11,train,0\n",
            "validate.csv": "label,youtube_id,time_start,time_end,split\narchery,xyz,0,10,validate\n",
            "test.csv": "youtube_id,time_start,time_end,split\nt,1,11,test\n",
            "table.csv": "path,label,split\nx.mp4,a,train\n",
            "other.json": "[1, 2]",
            "half.json": "{",
        },
    )
    found = DATASETS["kinetics400"](tmp_path)
    assert sorted(told(found.tables["table"], tmp_path)) == [
        ("test/t_000001_000011.mp4", "", "test"),
        ("train/air drumming/-abc_d_00000_000084_000094.mp4", "air drumming", "train"),
        ("val/xyz.mkv", "archery", "val"),
    ]
    assert found.missing == ["gone_000001_000011"] and found.notes == [
        "table: 2 classes are annotated; 400 are published"
    ]


def test_kinetics_in_json(tmp_path):
    touch(tmp_path, "a_000003_000013.mp4")
    entry = {"annotations": {"label": "yoga", "segment": [3.0, 13.0]}, "duration": 10.0, "subset": "train"}
    write(tmp_path, **{"train.json": {"a": entry}})
    assert told(DATASETS["kinetics600"](tmp_path).tables["table"], tmp_path) == [
        ("a_000003_000013.mp4", "yoga", "train")
    ]
    write(tmp_path, **{"train.json": {"a": entry | {"subset": "trial"}}})
    with pytest.raises(DataError, match=r"train\.json: split 'trial' of a is none of train"):
        DATASETS["kinetics600"](tmp_path)


def test_something_v1_is_folders_of_frames(tmp_path):
    touch(tmp_path, "20bn-something-something-v1/12/00001.jpg", "20bn-something-something-v1/7/00001.jpg")
    for name, text in {"train": "12;Holding something\n", "validation": "7;Tearing something\n", "test": "9\n"}.items():
        write(tmp_path, **{f"something-something-v1-{name}.csv": text})
    found = DATASETS["something_v1"](tmp_path)
    assert told(found.tables["table"], tmp_path) == [
        ("20bn-something-something-v1/12", "Holding something", "train"),
        ("20bn-something-something-v1/7", "Tearing something", "val"),
    ]
    assert found.missing == ["9"]


def test_something_v2(tmp_path):
    touch(tmp_path, "20bn-something-something-v2/12.webm", "20bn-something-something-v2/9.webm")
    lists = {
        "train": [
            {"id": "12", "label": "holding a cup", "template": "Holding [something] up", "placeholders": ["a cup"]}
        ],
        "validation": [],
        "test": [{"id": "9"}],
    }
    write(tmp_path, **{f"labels/something-something-v2-{name}.json": told for name, told in lists.items()})
    assert told(DATASETS["something_v2"](tmp_path).tables["table"], tmp_path) == [
        ("20bn-something-something-v2/12.webm", "Holding something up", "train"),
        ("20bn-something-something-v2/9.webm", "", "test"),
    ]


def diving48(folder, prefix="Diving48_V2_", label=1, classes=48):
    touch(folder, "rgb/a_00001.mp4", "rgb/b_00002.mp4")
    vocabulary = [["Back", "15som", f"{n:02d}Twis", "FREE"] for n in range(classes)]
    dives = [{"vid_name": name, "label": label, "start_frame": 0, "end_frame": 9} for name in ("a_00001", "b_00002")]
    files = {f"{prefix}train.json": dives[:1], f"{prefix}test.json": dives[1:], "Diving48_vocab.json": vocabulary}
    write(folder, **files)


def test_diving48(tmp_path):
    diving48(tmp_path)
    assert told(DATASETS["diving48"](tmp_path).tables["table"], tmp_path) == [
        ("rgb/a_00001.mp4", "Back 15som 01Twis FREE", "train"),
        ("rgb/b_00002.mp4", "Back 15som 01Twis FREE", "test"),
    ]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"prefix": "Diving48_"}, "has the first labels of Diving48"),
        ({"label": 48}, r"Diving48_V2_train\.json: label 48 of a_00001 must be in 0\.\.47"),
        ({"classes": 47}, r"Diving48_vocab\.json: names 47 classes"),
    ],
)
def test_other_labels_of_diving48_are_refused(tmp_path, fields, message):
    diving48(tmp_path, **fields)
    with pytest.raises(DataError, match=message):
        DATASETS["diving48"](tmp_path)


@pytest.mark.parametrize("name", DATASETS)
def test_a_folder_without_annotations_or_videos_is_named(name, tmp_path, ucf101):
    with pytest.raises(DataError, match="no lists of Kinetics" if "kinetics" in name else "no file |not one of the"):
        DATASETS[name](tmp_path / "UCF-101")
    if name == "ucf101":
        for path in tmp_path.rglob("*.avi"):
            path.unlink()
        with pytest.raises(DataError, match="not one of the 4 annotated videos lies in it, such as 'Archery/v_Arch"):
            DATASETS[name](ucf101)


def test_the_command_writes_tables_that_train(ucf101, capsys, tmp_path):
    for path in ucf101.rglob("*.avi"):
        write_video(path, numbered_frames(8), codec="mpeg4")
    out = tmp_path / "tables"
    annotate.main(["ucf101", str(ucf101), "--out", str(out)])
    printed = capsys.readouterr()
    assert f"{out}/fold1.csv: 1 train, 2 test, of 1 classes\n" in printed.out
    assert "1 annotated videos are not there" in printed.err
    assert (out / "missing.txt").read_text() == "Archery/v_Archery_g09_c01\n"
    assert Counter(row.split for row in read_table(ucf101, out / "fold3.csv")) == {"train": 1, "test": 2}
    config = DataConfig(str(ucf101), table=str(out / "fold1.csv"), frames=4, crop=32, short_side=(32, 32))
    data = open_videos(config)
    assert next(data.train_batches(1, seed=0, stage="s")).label.tolist() == [0]


def test_the_command_ends_with_one_line_of_what_is_wrong(tmp_path):
    with pytest.raises(SystemExit, match=r"DataError: .*gone: no such folder|no file trainlist01"):
        annotate.main(["ucf101", str(tmp_path / "gone")])


def test_a_video_of_another_class_is_not_taken_for_a_missing_one(tmp_path):
    touch(tmp_path, "walk/a.avi", "elsewhere/b.avi")
    for fold in (1, 2, 3):
        write(
            tmp_path, **{f"run_test_split{fold}.txt": "a.avi 1\nb.avi 1\n", f"walk_test_split{fold}.txt": "a.avi 1\n"}
        )
    found = DATASETS["hmdb51"](tmp_path)
    assert told(found.tables["fold1"], tmp_path) == [
        ("elsewhere/b.avi", "run", "train"),
        ("walk/a.avi", "walk", "train"),
    ]
    assert found.missing == ["run/a"]
