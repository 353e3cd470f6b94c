"""Mixtures of folders: shares, order, labels, and folders that are prepared."""

import itertools
from collections import Counter

import numpy as np
import pytest

from data_pipelines.config import DataConfig
from data_pipelines.errors import DataError
from data_pipelines.videos import open_videos
from hcml_jax.config import ConfigError
from tests.data_pipelines.test_prepared import prepared
from tests.data_pipelines.videos import numbered_frames, write_video

CLIPS = {"frames": 3, "stride": 1, "crop": 32, "short_side": (32, 32)}
KEY = {"seed": 3, "stage": "s"}


@pytest.fixture
def folders(tmp_path):
    """A folder of 4 videos with labels and a test split; one of 3, without a table; one of 2, of classes of its own."""
    for name, count in (("a", 5), ("b", 3), ("c", 2)):
        (tmp_path / name).mkdir()
        for number in range(count):
            write_video(tmp_path / name / f"{number}.mp4", numbered_frames(8))
    lines = [f"{number}.mp4,{'xy'[number % 2]},{'train' if number < 4 else 'test'}" for number in range(5)]
    (tmp_path / "a/table.csv").write_text("\n".join(["path,label,split", *lines]) + "\n")
    (tmp_path / "c/table.csv").write_text("path,label,split\n0.mp4,z,train\n1.mp4,z,test\n")
    return tmp_path


def opened(folders, *mixture, **options):
    given = tuple((str(folders / name), share) for name, share in mixture)
    return open_videos(DataConfig(str(folders / "a"), mixture=given, **CLIPS, **options))


def shown(data, batches, first_step=0, **options):
    found = data.train_batches(4, first_step=first_step, **KEY, **options)
    pairs = (zip(batch.index, batch.label, strict=True) for batch in itertools.islice(found, batches))
    return [(data.video(int(index)), int(label)) for batch in pairs for index, label in batch]


def test_examples_come_by_their_shares(folders):
    data = opened(folders, ("b", 0.3), ("c", 0.1))
    assert data.classes == ("x", "y") and data.num_clips("train") == 8
    found = shown(data, 250)
    of_folder = Counter(video.split("/")[-2] if "/" in video else "a" for video, _ in found)
    assert of_folder == {"a": 600, "b": 300, "c": 100}
    assert {label for video, label in found if "/" in video} == {-1}
    assert {label for video, label in found if "/" not in video} == {0, 1}
    own = [video for video, _ in found if "/" not in video]
    for start in range(0, 600, 4):  # each epoch of each folder has every video
        assert len(set(own[start : start + 4])) == 4
    assert shown(data, 3, first_step=200) == found[800:812]


def test_shards_read_the_same_mixture(folders):
    data = opened(folders, ("b", 0.5))
    whole = shown(data, 5)
    halves = [shown(data, 5, shard_index=shard, num_shards=2) for shard in (0, 1)]
    together = [pair for step in range(5) for half in halves for pair in half[2 * step : 2 * step + 2]]
    assert together == whole


def test_stages_of_labels_and_evaluations_read_the_first_folder(folders):
    data = opened(folders, ("b", 0.5))
    assert {label for _, label in shown(data, 20, labelled_only=True)} == {0, 1}
    assert not any("/" in video for video, _ in shown(data, 20, labelled_only=True))
    assert data.splits == ("train", "test") and data.num_clips("test") == 1


def test_folders_may_be_prepared(folders):
    """Next to files, and files next to them."""
    out = prepared(folders / "b", folders / "out")
    plain, mixed = opened(folders, ("b", 0.5)), opened(folders, (str(out), 0.5))
    batches = [next(data.train_batches(12, **KEY)) for data in (plain, mixed)]
    np.testing.assert_array_equal(*(batch.index for batch in batches))
    np.testing.assert_allclose(*(batch.clip.astype(int) for batch in batches), atol=8)
    assert plain.census != mixed.census


@pytest.mark.parametrize("mixture", [(("b", 1.0),), (("b", 0.6), ("c", 0.4)), (("b", 0.0),), (("", 0.5),)])
def test_shares_must_leave_some_to_the_first(mixture):
    with pytest.raises(ConfigError, match="mixture: found .* must be folders with shares above 0, together below 1"):
        DataConfig("a", mixture=mixture)


def test_a_folder_without_training_clips_is_named(folders):
    (folders / "c/table.csv").write_text("path,label,split\n1.mp4,z,test\n")
    with pytest.raises(DataError, match="mixture: .*c has no clips of split 'train'"):
        opened(folders, ("c", 0.5))
    with pytest.raises(DataError, match="gone: no such folder of videos"):
        opened(folders, ("gone", 0.5))
