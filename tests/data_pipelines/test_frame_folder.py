"""Videos that are folders of images."""

import numpy as np
import pytest
from PIL import Image

from data_pipelines.errors import VideoError
from data_pipelines.images import cut_out, encode_jpeg
from data_pipelines.verdict import Verdict, judge
from data_pipelines.video import probe, read_clips, read_frames
from data_pipelines.video_info import Part, VideoInfo
from tests.data_pipelines.test_data import open_videos
from tests.data_pipelines.videos import numbered_frames, read_numbers


@pytest.fixture
def folder(tmp_path):
    """A video of 12 frames of 64 x 48, and a file that is none of them."""
    folder = tmp_path / "17"
    folder.mkdir()
    for number, frame in enumerate(numbered_frames(12)):
        Image.fromarray(frame).save(folder / f"{number + 1:05d}.jpg", quality=95)
    (folder / "labels.txt").write_text("no frame")
    return folder


def test_frames_are_those_asked_for(folder):
    info = probe(folder)
    assert info == VideoInfo(12, 64, 48, 0.0)
    assert read_numbers(read_frames(folder, [11, 0, 5, 5])) == [11, 0, 5, 5]
    first, second = read_clips(folder, [([2, 3], Part((8, 4, 20, 40), (10, 20))), ([7], info.whole)], info)
    assert first.shape == (2, 10, 20, 3) and read_numbers(first) == [2, 3] and read_numbers(second) == [7]


@pytest.mark.parametrize("size", [(16, 16), (24, 30), (64, 80)])
def test_a_part_is_resized_as_pillow_does(size):
    y, x = np.mgrid[:60, :80]
    image = np.stack([128 + 90 * np.sin(x / 9), 128 + 90 * np.cos(y / 11), 2 * x], -1).astype(np.uint8)
    found = cut_out(encode_jpeg(image, 100), (5, 10, 48, 60), size, "a.jpg")
    expected = Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR, (10, 5, 70, 53))
    np.testing.assert_allclose(found.astype(int), np.asarray(expected), atol=9)
    assert np.abs(found.astype(int) - np.asarray(expected)).mean() < 1.5


def test_frames_are_in_the_order_of_their_numbers(tmp_path):
    for number, frame in enumerate(numbered_frames(12)):
        Image.fromarray(frame).save(tmp_path / f"img_{number}.png")
    (tmp_path / "._img_3.png").write_bytes(b"no frame")
    assert read_numbers(read_frames(tmp_path, range(12))) == list(range(12))


def test_a_table_may_name_folders(folder, tmp_path):
    (tmp_path / "table.csv").write_text("path,label,split\n17,x,train\n")
    (batch,) = open_videos(tmp_path, frames=4, stride=2).eval_batches("train", 1)
    assert read_numbers(batch.clip[0, 0]) == [2, 4, 6, 8]


def test_what_cannot_be_read_is_named(folder, tmp_path):
    assert judge(folder) == Verdict("ok", "", 12, 48, 64, 0.0, "images")
    (folder / "00009.jpg").write_bytes(b"no image")
    assert judge(folder) == Verdict(
        "bad", f"{folder}/00009.jpg: is no image that can be decoded, at frame 8 of 12", codec="images"
    )
    with pytest.raises(VideoError, match=r"00009\.jpg: is no image"):
        read_frames(folder, [8])
    (folder / "00009.jpg").write_bytes((folder / "00008.jpg").read_bytes()[:-300])
    with pytest.raises(VideoError, match=r"00009\.jpg: is cut short"):
        read_frames(folder, [8])
    (folder / "00009.jpg").write_bytes(b"")
    with pytest.raises(VideoError, match=r"00009\.jpg: is no image"):
        read_frames(folder, [8])
    (folder / "00009.jpg").write_bytes(encode_jpeg(np.zeros((20, 20, 3), np.uint8), 90))
    with pytest.raises(VideoError, match=r"00009\.jpg: has 20 x 20 pixels, fewer than"):
        read_frames(folder, [8])
    (folder / "00009.jpg").unlink()
    with pytest.raises(VideoError, match="ends before frame 11 of 12"):
        read_frames(folder, [3], VideoInfo(12, 64, 48, 0.0))
    (tmp_path / "empty").mkdir()
    with pytest.raises(VideoError, match="empty: has no images"):
        probe(tmp_path / "empty")
