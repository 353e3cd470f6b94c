"""Reading frames: exact numbers for any codec, and one clear error for whatever cannot be read."""

import struct
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest

from data_pipelines import video
from data_pipelines.errors import VideoError
from data_pipelines.video import Part, probe, read_clips, read_frames
from tests.data_pipelines.videos import numbered_frames, read_numbers, write_video

CODECS = {
    "b_frames.mp4": {"codec": "libx264", "bf": "3", "g": "12"},
    "open_gop.mkv": {"codec": "libx264", "x264-params": "open-gop=1:keyint=8:bframes=3"},
    "h265.mp4": {"codec": "libx265", "x265-params": "keyint=10:bframes=3:log-level=none"},
    "ten_bit.mp4": {"codec": "libx264", "pix_fmt": "yuv420p10le"},
    "full_range.mp4": {"codec": "libx264", "pix_fmt": "yuvj420p"},
    "mpeg4.avi": {"codec": "mpeg4", "bf": "2", "g": "12", "b": "2M"},
    "hidden_frames.webm": {"codec": "libvpx", "auto-alt-ref": "1", "lag-in-frames": "16", "b": "1M"},
    "vp9_alpha.webm": {"codec": "libvpx-vp9", "pix_fmt": "yuva420p", "b": "1M"},
    "animation.gif": {"codec": "gif", "pix_fmt": "rgb8"},
    "stream.ts": {"codec": "mpeg2video", "bf": "2", "b": "1M"},
}


@pytest.fixture(scope="module", params=CODECS)
def coded(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("coded") / request.param
    return write_video(path, numbered_frames(40), **CODECS[request.param])


def test_probe_counts_frames_and_gives_size_and_rate(coded):
    info = probe(coded)
    assert (info.num_frames, info.height, info.width) == (40, 48, 64)
    assert info.fps == pytest.approx(10, rel=0.01)


def test_frames_are_the_ones_asked_for(coded):
    for indices in ([0], [39], range(40), [5, 5, 17, 18, 30], [23, 38], [9, 10, 11], [8], [12]):
        assert read_numbers(read_frames(coded, list(indices))) == list(indices)


def test_frames_are_those_of_a_decoder_that_is_told_nothing(coded):
    """Also where it passes over frames that no other refers to."""
    with av.open(str(coded)) as container:
        whole = [frame.to_ndarray(format="rgb24") for frame in container.decode(container.streams.best("video"))]
    for first in (0, 11, 26):
        indices = range(first, first + 13, 3)
        tolerance = 40 if coded.endswith("ten_bit.mp4") else 0  # of its colours, two ways to interpolate
        np.testing.assert_allclose(
            read_frames(coded, indices), np.stack([whole[i] for i in indices]), rtol=0, atol=tolerance
        )


def test_frames_that_no_other_refers_to_are_not_decoded(tmp_path):
    options = {"bf": "2", "g": "40", "x264-params": "b-pyramid=none:b-adapt=0:scenecut=0"}
    path = write_video(tmp_path / "a.mp4", numbered_frames(40), **options)
    with av.open(path) as container:
        (stream,) = container.streams.video
        decoded = []

        class Counted:
            """A container whose packets tell what they decode to."""

            def demux(self, stream):
                for packet in container.demux(stream):

                    def decode(packet=packet):
                        decoded.extend(frames := packet.decode())
                        return frames

                    yield SimpleNamespace(pts=packet.pts, is_keyframe=packet.is_keyframe, decode=decode)

        numbers = [number for number, _ in video._at_times(Counted(), stream, probe(path), [0, 20])]
    assert numbers == [0, 20] and len(decoded) < 20


@pytest.mark.parametrize("change", [{"first_time": 10**6}, {"step": 7}])
def test_times_that_do_not_come_out_are_not_trusted(tmp_path, change):
    path = write_video(tmp_path / "a.mp4", numbered_frames(40), g="10")
    assert read_numbers(read_frames(path, [27, 30], probe(path)._replace(**change))) == [27, 30]


def test_reading_starts_at_a_keyframe_where_that_is_exact(tmp_path):
    path = write_video(tmp_path / "a.mp4", numbered_frames(40), bf="2", g="10", sc_threshold="0")
    assert [frame for frame, _ in probe(path).keyframes] == [0, 10, 20, 30]
    avi = write_video(tmp_path / "a.avi", numbered_frames(40), codec="mpeg4", g="10", sc_threshold="1000000000")
    assert probe(avi).keyframes == ((0, 0), (10, 10), (20, 20), (30, 30))


@pytest.mark.parametrize("name", ["mpeg4.avi", "hidden_frames.webm"])
def test_packets_that_are_not_frames_are_not_trusted(tmp_path, monkeypatch, name):
    """As where AVI packs two frames into one packet, or VP8 has one that is never shown."""
    path, times = write_video(tmp_path / name, numbered_frames(40), **CODECS[name]), video._packet_times
    monkeypatch.setattr(video, "_packet_times", lambda *a: {**times(*a), -5: False})
    info = probe(path)
    assert (info.num_frames, info.keyframes, info.step) == (40, (), 0)
    assert read_numbers(read_frames(path, [31, 7], info)) == [31, 7]


def test_a_keyframe_that_does_not_come_out_is_not_trusted(tmp_path):
    path = write_video(tmp_path / "a.mp4", numbered_frames(40), g="10")
    wrong = probe(path)._replace(keyframes=((0, 0), (25, 10**9)))
    assert read_numbers(read_frames(path, [27, 30], wrong)) == [27, 30]


def test_a_video_cut_out_of_a_longer_one_keeps_its_numbers(tmp_path):
    """Its first packets belong before its first keyframe, and cannot be decoded."""
    options = {"codec": "libx264", "x264-params": "open-gop=1:keyint=8:bframes=3:scenecut=0"}
    whole = write_video(tmp_path / "whole.mkv", numbered_frames(40), **options)
    with av.open(str(whole)) as source, av.open(str(tmp_path / "cut.mkv"), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        packets = [packet for packet in source.demux(video=0) if packet.size]
        second = [i for i, packet in enumerate(packets) if packet.is_keyframe][1]
        assert min(packet.pts for packet in packets[second:]) < packets[second].pts
        for packet in packets[second:]:
            packet.stream = stream
            target.mux(packet)
    cut = tmp_path / "cut.mkv"
    numbers = read_numbers(read_frames(cut, range(probe(cut).num_frames)))
    assert numbers[0] > 0 and numbers == list(range(numbers[0], 40))
    assert read_numbers(read_frames(cut, [5, 9])) == [numbers[5], numbers[9]]


def test_a_video_without_a_frame_is_refused(tmp_path):
    path = tmp_path / "a.y4m"
    path.write_text("YUV4MPEG2 W64 H48 F10:1 Ip A1:1 C420\n")
    with pytest.raises(VideoError, match=f"{path}.*no frames"):
        probe(path)


def test_a_name_that_is_not_utf8_does_no_harm(tmp_path):
    path = Path(write_video(tmp_path / "a.mkv", numbered_frames(4), title="abcdefgh"))
    path.write_bytes(path.read_bytes().replace(b"abcdefgh", b"\xff\xfe\xfd\xfcefgh"))
    assert probe(path).num_frames == 4


def test_frames_are_resized_while_decoding(tmp_path):
    wedge = np.broadcast_to(np.arange(64)[:, None] * 3, (4, 48, 64, 3)).astype(np.uint8)
    path = write_video(tmp_path / "a.mp4", wedge, crf="1")
    small = read_frames(path, [0, 3], size=(24, 32))
    assert small.shape == (2, 24, 32, 3)
    expected = wedge[:2].reshape(2, 24, 2, 32, 2, 3).mean((2, 4))
    np.testing.assert_allclose(small, expected, atol=4)


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_rotated_videos_are_set_upright(tmp_path, quarters):
    picture = np.zeros((3, 48, 64, 3), np.uint8)
    picture[:, :24, :32] = 200  # bright top left
    path = Path(write_video(tmp_path / "a.mp4", picture))
    _rotate_file(path, quarters)
    upright = np.rot90(picture, -quarters, axes=(1, 2))
    info = probe(path)
    assert (info.height, info.width) == upright.shape[1:3]
    np.testing.assert_allclose(read_frames(path, [0, 1, 2]), upright, atol=12)
    half = upright.shape[1] // 2, upright.shape[2] // 2
    assert read_frames(path, [0], size=half).shape[1:3] == half
    top, left, height, width = 10, 4, 30, 20
    (shown,) = read_clips(path, [([0, 2], Part((top, left, height, width), (height, width)))], info)
    np.testing.assert_allclose(shown, upright[:2, top : top + height, left : left + width], atol=12)


def _rotate_file(path: Path, quarters: int) -> None:
    """Turns a file clockwise: writes the matrix of its track header (ISO/IEC 14496-12, 8.3.2)."""
    cos, sin = [(0, 1), (-1, 0), (0, -1)][quarters - 1]
    content = bytearray(path.read_bytes())
    start = content.index(b"tkhd") + 4 + 40
    one = 1 << 16
    content[start : start + 36] = struct.pack(">9i", cos * one, sin * one, 0, -sin * one, cos * one, 0, 0, 0, 1 << 30)
    path.write_bytes(content)


def test_of_two_video_streams_the_default_is_read(tmp_path):
    path = write_video(tmp_path / "a.mp4", numbered_frames(12), streams=2)
    assert probe(path)[:3] == (12, 64, 48)
    assert read_numbers(read_frames(path, [3, 11])) == [3, 11]


def test_colours_survive(tmp_path):
    colours = np.zeros((2, 32, 32, 3), np.uint8)
    colours[..., 0], colours[..., 2] = 220, 40
    path = write_video(tmp_path / "a.mp4", colours)
    np.testing.assert_allclose(read_frames(path, [0, 1]), colours, atol=8)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("gone.mp4", None, "gone.mp4: no such file"),
        ("empty.mp4", b"", "empty.mp4: the file is empty"),
        ("text.mp4", b"not a video at all" * 99, "text.mp4: cannot be decoded"),
    ],
)
def test_what_is_no_video_is_named_with_the_reason(tmp_path, name, content, reason):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(VideoError, match=reason):
        probe(tmp_path / name)


def test_a_file_of_sound_has_no_video_stream(tmp_path):
    import wave

    with wave.open(str(tmp_path / "a.wav"), "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes(bytes(16000))
    with pytest.raises(VideoError, match="has no video stream"):
        probe(tmp_path / "a.wav")


def test_a_video_that_ends_early_is_an_error(tmp_path):
    path = write_video(tmp_path / "a.mp4", numbered_frames(20), g="5")
    longer = probe(path)._replace(num_frames=30)
    with pytest.raises(VideoError, match="ends before frame 20 of 30"):
        read_frames(path, [18, 20, 25], longer)
    with pytest.raises(VideoError, match="ends before frame 28 of 30"):
        read_frames(path, [28], longer)


@pytest.mark.parametrize(("name", "codec"), [("a.mkv", "libx264"), ("a.webm", "libvpx"), ("b.webm", "libvpx-vp9")])
def test_a_matroska_file_cut_to_less_than_half_is_refused(tmp_path, name, codec):
    path = Path(write_video(tmp_path / name, numbered_frames(100), codec=codec, g="1"))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 6 // 10])
    assert 50 <= probe(path).num_frames < 100
    path.write_bytes(whole[: len(whole) // 3])
    with pytest.raises(VideoError, match=f"{name}: cut short, it ends at [234].% of the length"):
        probe(path)


def set_length_told(path, frames):
    """Changes how many frames the header of an AVI file tells."""
    content = bytearray(Path(path).read_bytes())
    struct.pack_into("<I", content, content.index(b"vids") + 32, frames)
    Path(path).write_bytes(content)


@pytest.mark.parametrize(("told", "refused"), [(59, False), (81, True)])
def test_avi_may_miss_less_than_half_of_the_frames_it_tells(tmp_path, told, refused):
    path = write_video(tmp_path / "a.avi", numbered_frames(40), **CODECS["mpeg4.avi"])
    set_length_told(path, told)
    if refused:
        with pytest.raises(VideoError, match="a.avi: cut short, it ends at 49% of the length"):
            probe(path)
    else:
        assert probe(path).num_frames == 40


@pytest.mark.parametrize("name", ["mpeg4.avi", "vp9_alpha.webm"])
def test_a_single_frame_is_a_whole_video(tmp_path, name):
    assert probe(write_video(tmp_path / name, numbered_frames(1), **CODECS[name])).num_frames == 1


def test_a_damaged_video_is_an_error(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (20, 48, 64, 3)).astype(np.uint8)
    path = Path(write_video(tmp_path / "a.mp4", noise))
    info = probe(path)
    content = bytearray(path.read_bytes())
    start = content.index(b"mdat") + 4
    content[start : start + 20000] = bytes(20000)
    path.write_bytes(content)
    with pytest.raises(VideoError, match=r"a\.mp4: cannot be decoded, corrupt"):
        read_frames(path, [15], info)


def test_indices_must_be_frames(tmp_path):
    path = write_video(tmp_path / "a.mp4", numbered_frames(5))
    assert read_numbers(read_frames(path, [3, 0, 3, 1])) == [3, 0, 3, 1]
    for indices in ([], [4, 5], [-1, 0]):
        with pytest.raises(ValueError, match="must be some of its 5 frames"):
            read_frames(path, indices)


@pytest.mark.parametrize(
    ("firsts", "passes"), [([12, 17], 1), ([17, 12], 1), ([4, 11], 1), ([5, 30], 2), ([30, 2, 5], 2), ([2, 15, 30], 3)]
)
def test_clips_side_by_side_are_decoded_in_one_pass(tmp_path, monkeypatch, firsts, passes):
    path = write_video(tmp_path / "a.mp4", numbered_frames(40), g="10", sc_threshold="0")
    info, opened, open_file = probe(path), [], av.open
    monkeypatch.setattr(av, "open", lambda *a, **k: opened.append(a) or open_file(*a, **k))
    wanted = [(range(i, i + 8, 2), Part((0, 0, 48, 64), (24 + 2 * n, 32))) for n, i in enumerate(firsts)]
    clips = read_clips(path, wanted, info)
    assert [read_numbers(clip) for clip in clips] == [list(indices) for indices, _ in wanted]
    assert [clip.shape[1:3] for clip in clips] == [part.size for _, part in wanted]
    assert len(opened) == passes
