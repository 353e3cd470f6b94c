"""Real and odd files, where they are: `HCML_TEST_DATA`, or `../shared/data` beside the checkout."""

import os
from pathlib import Path

import numpy as np
import pytest

import data_pipelines
from data_pipelines import DataConfig
from data_pipelines.errors import VideoError
from data_pipelines.video import probe, read_frames
from hcml_jax.batch import Reads

HERE = Path(__file__).parents[2]
DATA = Path(os.environ.get("HCML_TEST_DATA", HERE.parent / "shared" / "data"))

pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason=f"no real videos at {DATA}")

# (frames, width, height) as displayed; None: not readable to its end
ODD = {
    "AudioVideoInterleave.avi": None,
    "Mpeg4.mp4": None,
    "av1_video.mkv": (125, 640, 360),
    "bipbop_480wp_1001kbps-cenc-video-key1-init.mp4": None,
    "bitmap.mp4": (5, 1, 1),
    "bt709_full_range.mp4": (30, 1280, 720),
    "chunk_out_of_range.mp4": None,
    "corrupted.mp4": None,
    "empty.webm": None,
    "gif.gif": None,
    "h264_10bits.mp4": (30, 200, 200),
    "h265_10bits.mp4": (30, 200, 200),
    "nasa_13013.mp4": (390, 480, 270),
    "no_duration.webm": (74, 1280, 720),
    "no_timescale.mp4": None,
    "pigs_in_a_polka.gif": (30, 314, 273),
    "short-cenc.mp4": None,
    "test_case_1185230.mp4": None,
    "transparent.webm": (150, 200, 200),
    "video_0.mov": (3, 568, 320),
    "video_90.mov": (3, 320, 568),
    "video_270.mov": (3, 320, 568),
    "video_with_failing_audio.mp4": (280, 640, 360),
    "zero_empty_stsc.mp4": None,
}


@pytest.mark.parametrize("name", ODD)
def test_odd_files_give_frames_or_one_clear_error(name):
    path = DATA / "odd" / name
    if ODD[name] is None:
        with pytest.raises(VideoError, match=name):
            read_frames(path, range(probe(path).num_frames))
        return
    info = probe(path)
    assert info[:3] == ODD[name]
    last = read_frames(path, [info.num_frames - 1])
    assert last.shape == (1, info.height, info.width, 3)


def test_only_where_packets_are_frames_does_reading_start_at_keyframes():
    """Some AVI files pack two frames into one packet."""
    packed = probe(DATA / "clips" / "RATRACE_wave_f_nm_np1_fr_goo_37.avi")
    plain = probe(DATA / "clips" / "v_SoccerJuggling_g23_c01.avi")
    assert (packed.num_frames, packed.keyframes, packed.step) == (72, (), 0)
    assert (plain.num_frames, len(plain.keyframes), plain.step) == (240, 20, 1)


@pytest.mark.parametrize("pattern", ["clips/*", "ut_interaction/1*_1_*"])
def test_seeking_gives_the_frames_that_decoding_in_order_gives(pattern):
    for path in sorted(DATA.glob(pattern)):
        info = probe(path)
        indices = np.linspace(0, info.num_frames - 1, 7).astype(int)
        together = read_frames(path, indices, info)
        for i in (3, 6):
            alone = read_frames(path, [indices[i]], info)
            np.testing.assert_array_equal(alone[0], together[i])


def test_a_folder_of_real_videos_gives_batches():
    config = DataConfig(str(DATA / "clips"), frames=8, short_side=(64, 80), crop=56)
    data = data_pipelines.open_data(config)
    batch = next(data.train_batches(8, seed=0, stage="first", reads=Reads(clips=2)))
    assert batch.clip.shape == (8, 2, 8, 56, 56, 3)
    assert (batch.clip.std((2, 3, 4, 5)) > 10).all()
