"""Flow that is computed once: right, resumed, shared out, read as clips show it; starts where motion changes."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from data_pipelines import DataConfig, DataError, open_data
from data_pipelines.flow_files import FlowFiles, add_motion, flow_name, read_flow, read_motion, save_flow
from data_pipelines.write_video import encode
from hcml_jax import compute_flow
from hcml_jax.batch import Reads
from hcml_jax.config import ConfigError
from hcml_jax.flow_networks import flow_network
from hcml_jax.ops import motion_difference

FLOW = Reads(flow=True)
SIZES = {"frames": 3, "stride": 2, "short_side": (64, 64), "crop": 48}


def write_moving(path, frames=14, velocity=(2, -1)):
    """A smooth texture of 96 x 64 that moves by `velocity` pixels a frame; from its middle on, the other way."""
    y, x = np.mgrid[:64, :96]
    time = np.arange(frames)
    time = np.minimum(time, frames - 1 - time)[:, None, None]
    x, y = x - velocity[0] * time, y - velocity[1] * time
    wave = np.cos(x / 4 + y / 7) + np.cos(y / 5 - x / 9)
    images = np.repeat(np.round(128 + 55 * wave)[..., None], 3, -1).astype(np.uint8)
    path.parent.mkdir(exist_ok=True)
    encode(images, path, crf=1, rate=8)


@pytest.fixture
def folder(tmp_path):
    """Two videos that move, and one that is none."""
    write_moving(tmp_path / "videos" / "a.mp4")
    write_moving(tmp_path / "videos" / "b" / "c.mp4", velocity=(-1, 2))
    return tmp_path / "videos"


def run(folder, out, *flags):
    """The exit code of the command."""
    with pytest.raises(SystemExit) as end:
        compute_flow.main([str(folder), "--out", str(out), "--stride", "2", "--short-side", "0", *flags])
    return end.value.code


def opened(folder, out, **fields):
    return open_data(DataConfig(str(folder), flow=str(out), **{**SIZES, **fields}))


def test_what_was_stored_is_read_as_clips_show_it(folder, tmp_path):
    out = tmp_path / "flow"
    assert run(folder, out, "--every", "1") == 0
    assert (out / "a.mp4.npz").exists() and (out / "b" / "c.mp4.npz").exists() and (out / "motion.png").exists()
    data = opened(folder, out)
    assert data.flow_fault("train") is None and not data.flow_is_true
    whole = next(data.eval_batches("train", 2, reads=FLOW))
    assert whole.flow.shape == (2, 1, 2, 48, 48, 2)
    reads = Reads(clips=2, area=(0.3, 0.5), max_offset=3, flow=True)
    drawn = next(data.train_batches(2, seed=0, stage="first", reads=reads))
    first = {0: (2.0, -1.0), 1: (-1.0, 2.0)}
    checked = 0
    for batch in (whole, drawn):
        for row, index in enumerate(batch.index):
            for flow, start, box in zip(batch.flow[row], batch.start[row], batch.box[row], strict=True):
                scale = 48 / box[[3, 2]]
                for t, found in enumerate(flow):
                    frame = start + 2 * t
                    if frame in (5, 6):  # there it turns round
                        continue
                    velocity = np.float32(first[int(index)]) * (2 if frame < 5 else -2)
                    np.testing.assert_allclose(found[12:-12, 12:-12].mean((0, 1)), velocity * scale, atol=0.35)
                    checked += 1
    assert checked > 6
    with pytest.raises(
        DataError, match="holds flow for clips of stride 2, and these have stride 1: set config.data.stride=2"
    ):
        opened(folder, out, stride=1)


def test_flow_is_stored_to_within_a_twentieth_of_a_pixel(tmp_path):
    flow = np.random.default_rng(0).normal(0, 30, (3, 8, 9, 2)).astype(np.float32)
    flow[0, 0, 0] = np.nan, 9999
    save_flow(tmp_path / "a" / "b.npz", flow)
    found = read_flow(tmp_path / "a" / "b.npz")
    assert abs(found[1:] - flow[1:]).max() <= 1 / 32
    np.testing.assert_allclose(found[0, 0, 0], [0, 2047.9375])
    (tmp_path / "a" / "b.npz").write_bytes(b"PK")
    with pytest.raises(DataError, match="b.npz: stored flow cannot be read"):
        read_flow(tmp_path / "a" / "b.npz")


def test_motion_is_compared_over_the_stride(folder, tmp_path):
    assert run(folder, tmp_path / "flow", "--every", "1", "--scale", "16") == 0
    flow, entry = read_flow(tmp_path / "flow" / "a.mp4.npz"), read_motion(tmp_path / "flow")["a.mp4.npz"]
    assert (entry.frames, entry.height, entry.width) == (14, 64, 96)
    motion = np.array(entry.motion, float)
    assert len(flow) == len(motion) == 12
    for t in range(10):
        np.testing.assert_allclose(motion[t], motion_difference(flow[[t, t + 2]], scale=16)[0], rtol=0.02, atol=0.02)
    assert np.isnan(motion[10:]).all()


def test_flow_may_be_over_other_frames_than_clips_stride(folder, tmp_path):
    """Over 2 frames, for clips of every 4th; the change of motion is from one frame of a clip to the next."""
    flags = ["--stride", "4", "--over", "2", "--every", "2", "--scale", "16", "--weighting", "none"]
    assert run(folder, tmp_path / "flow", *flags) == 0
    flow, entry = read_flow(tmp_path / "flow" / "a.mp4.npz"), read_motion(tmp_path / "flow")["a.mp4.npz"]
    assert len(flow) == 6 == len(entry.motion)
    inner = flow[:, 16:-16, 16:-16].mean((1, 2))
    np.testing.assert_allclose(inner[:2], [(4, -2)] * 2, atol=0.2)
    expected = motion_difference(flow[[2, 4]], scale=16, weighting="none")[0]  # where it turns back
    np.testing.assert_allclose(entry.motion[2], expected, rtol=0.02)
    data = opened(folder, tmp_path / "flow", stride=4)
    (batch,) = data.eval_batches("train", 2, reads=FLOW)
    np.testing.assert_array_equal(batch.start[0, 0] % 2, 0)
    np.testing.assert_allclose(batch.flow[0, 0, 0, 8:-8, 8:-8].mean((0, 1)), (4, -2), atol=0.2)


def test_flow_does_not_lead_out_of_the_part_of_a_video(folder, tmp_path):
    """Over 4 frames, for clips of every 2nd: the last of two maps leads 2 frames further than the clip's last frame."""
    assert run(folder, tmp_path / "flow", "--over", "4", "--every", "1") == 0
    files = FlowFiles(tmp_path / "flow", folder)
    np.testing.assert_array_equal(files.starts(folder / "a.mp4", (0, 10), 2, False), np.arange(4))
    described = json.loads((tmp_path / "flow" / "flow.json").read_text())
    (tmp_path / "flow" / "flow.json").write_text(
        json.dumps({name: value for name, value in described.items() if name not in ("over", "weighting")})
    )  # as before there was a choice
    assert FlowFiles(tmp_path / "flow", folder).description == dataclasses.replace(files.description, over=2)


def test_work_that_stopped_goes_on_and_may_be_shared(folder, tmp_path, capsys):
    out = tmp_path / "flow"
    assert run(folder, out, "--shard", "1/2") == 0
    assert not (out / "a.mp4.npz").exists()
    untouched = (out / "b" / "c.mp4.npz").stat().st_mtime_ns
    assert run(folder, out) == 0
    assert (out / "a.mp4.npz").exists() and (out / "b" / "c.mp4.npz").stat().st_mtime_ns == untouched
    assert sorted(path.name for path in out.glob("motion*")) == ["motion.png", "motion0.jsonl", "motion1.jsonl"]
    lines = (out / "motion0.jsonl").read_text()
    (out / "motion0.jsonl").write_text(lines[: len(lines) // 2])  # killed while it was written
    assert run(folder, out) == 0
    assert set(read_motion(out)) == {"a.mp4.npz", "b/c.mp4.npz"}
    assert "computed otherwise" in run(folder, out, "--every", "1")


def test_what_can_have_no_flow_is_listed_and_left_out_where_that_is_allowed(folder, tmp_path, capsys):
    out = tmp_path / "flow"
    (folder / "bad.mp4").write_bytes(b"no video")
    write_moving(folder / "short.mp4", frames=2)
    assert run(folder, out) == 1
    told = capsys.readouterr()
    assert "left out: " in told.err and "bad.mp4" in told.err and "2 frames, but a pair spans 3" in told.err
    assert "flow of 2 of 4 videos" in told.out
    (folder / "bad.mp4").unlink()
    fields = {"short_clips": "loop"}
    with pytest.raises(DataError, match=r"1 of 3 clips cannot be used.*\n.*short.mp4: has no flow in .*a pair spans 3"):
        opened(folder, out, **fields)
    assert opened(folder, out, skip_bad=True, **fields).num_clips("train") == 2


def test_flow_that_is_missing_or_another_videos_is_refused(folder, tmp_path):
    """It is not left out: computing it again mends that."""
    out = tmp_path / "flow"
    assert run(folder, out) == 0
    write_moving(folder / "new.mp4")
    (folder / "a.mp4").unlink()
    write_moving(folder / "a.mp4", frames=12)  # cut shorter since
    data = opened(folder, out, skip_bad=True)
    with pytest.raises(DataError, match=r"(?s)no flow of 2 clips of split 'train'.*new.mp4: .* holds no flow of it"):
        data.train_batches(1, seed=0, stage="first", reads=FLOW)
    assert "a.mp4: flow was computed of 14 frames of 64 x 96, the video has 12" in data.flow_fault("train")
    assert run(folder, out) == 0
    assert opened(folder, out).flow_fault("train") is None
    save_flow(out / "new.mp4.npz", np.zeros((3, 64, 96, 2), np.float32))
    with pytest.raises(DataError, match="new.mp4.npz: holds 3 flow maps where 6 were computed"):
        list(opened(folder, out).eval_batches("train", 1, reads=FLOW))
    (out / "new.mp4.npz").unlink()
    assert "holds no flow of it" in opened(folder, out).flow_fault("train")
    with pytest.raises(DataError, match="is no folder of computed flow"):
        opened(folder, tmp_path)


def test_clips_start_where_the_motion_changes_more_than_at_the_median(folder, tmp_path):
    out = tmp_path / "flow"
    assert run(folder, out, "--every", "1") == 0
    files = FlowFiles(out, folder)
    anywhere = files.starts(folder / "a.mp4", (0, 14), maps=2, moving=False)
    assert anywhere.tolist() == list(range(10))  # frames start, + 2 and + 4 of 14
    motion = np.array(read_motion(out)["a.mp4.npz"].motion[:10])
    moving = files.starts(folder / "a.mp4", (0, 14), maps=2, moving=True)
    assert moving.tolist() == [t for t in range(10) if motion[t] > np.median(motion)]
    assert 0 < len(moving) <= 5
    part = files.starts(folder / "a.mp4", (3, 12), maps=2, moving=False)
    assert part.tolist() == [3, 4, 5, 6, 7]
    data = opened(folder, out, moving=True)
    drawn = [next(data.train_batches(2, seed=s, stage="first", reads=Reads(clips=2, flow=True))) for s in range(6)]
    for batch in drawn:
        for row, index in enumerate(batch.index):
            name = "b/c.mp4" if index else "a.mp4"
            assert set(batch.start[row].tolist()) <= set(files.starts(folder / name, (0, 14), 2, True).tolist())
    again = next(data.train_batches(2, seed=0, stage="first", reads=Reads(clips=2, flow=True)))
    np.testing.assert_array_equal(again.start, drawn[0].start)
    still = dataclasses.replace(read_motion(out)["a.mp4.npz"], motion=(0.0,) * 12)
    add_motion(out, 0, still)  # nothing changes: anywhere will do
    assert len(FlowFiles(out, folder).starts(folder / "a.mp4", (0, 14), 2, True)) == 10


def test_starts_lie_on_the_grid_that_was_computed(folder, tmp_path):
    out = tmp_path / "flow"
    assert run(folder, out) == 0  # every second frame
    data = opened(folder, out)
    for step in range(4):
        batch = next(data.train_batches(2, seed=step, stage="first", reads=FLOW))
        assert not (batch.start % 2).any()


def test_a_video_that_begins_again_has_the_flow_of_the_nearest_frame_before(folder, tmp_path):
    out = tmp_path / "flow"
    assert run(folder, out, "--every", "2") == 0
    data = opened(folder, out, frames=10, short_clips="loop")  # spans 19 frames of 14
    batch = next(data.eval_batches("train", 1, reads=FLOW))
    assert batch.start[0, 0] == 0 and not batch.consecutive[0, 0, 6]
    stored = read_flow(out / "a.mp4.npz")[:, 8:56, 24:72]
    np.testing.assert_array_equal(batch.flow[0, 0], stored[[0, 1, 2, 3, 4, 5, 5, 0, 1]])


def test_true_flow_is_stored_as_it_is(folder, tmp_path, capsys):
    flow = np.random.default_rng(0).normal(0, 2, (13, 64, 96, 2))
    np.savez(folder / "a.npz", flow=flow)
    np.savez(folder / "c.npz", flow=flow[1:])
    (folder / "table.csv").write_text("path,label,split,flow\na.mp4,x,train,a.npz\nb/c.mp4,x,train,c.npz\n")
    assert run(folder, tmp_path / "flow", "--provider", "truth", "--stride", "1") == 1
    assert "c.npz has shape (12, 64, 96, 2), the video needs (13," in capsys.readouterr().err
    assert abs(read_flow(tmp_path / "flow" / "a.mp4.npz") - flow).max() < 0.03126


def test_a_network_computes_flow_of_pairs():
    """Of parts of one size, the last filled up."""
    pairs = np.random.default_rng(0).integers(0, 256, (17, 2, 64, 64, 3), dtype=np.uint8)
    found = compute_flow.make_provider("hcml:sprites").of_pairs(pairs)
    expected = jax.jit(flow_network("hcml:sprites"))(pairs)[:, 0]
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)


def test_frames_that_are_too_small_for_raft_are_refused(folder, raft, tmp_path, capsys):
    provider = ["--provider", f"raft:{raft}"]
    assert "--short-side 64: raft:" in run(folder, tmp_path / "flow", *provider, "--short-side", "64")
    assert not (tmp_path / "flow").exists()
    assert run(folder, tmp_path / "flow", *provider) == 1
    assert "64 x 96 pixels, but raft:" in capsys.readouterr().err


def test_videos_outside_the_root_have_their_flow_inside_the_folder(tmp_path):
    root = tmp_path / "a" / "root"
    assert flow_name(root, root / "b" / "c.mp4") == "b/c.mp4.npz"
    outside = flow_name(root, root / ".." / "x.mp4")
    assert outside == f"{str(tmp_path)[1:]}/a/x.mp4.npz"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--provider", "rft"], "--provider must be dis, raft:DIR, hcml:DIR or truth, not 'rft'"),
        (["--provider", "truth"], "--provider truth needs --over 1 (or --stride 1) and --short-side 0"),
        (["--provider", "raft:nowhere"], "flow by raft:nowhere: no weights are in nowhere"),
        (["--shard", "2/2"], "--shard must be i/n, 0 <= i < n, not '2/2'"),
        (["--every", "3"], "--every 3 must divide --stride 2"),
        (["--over", "-1"], "--over must be 1 or more, not -1"),
        (["--scale", "0"], "--scale must be 1 or more, not 0"),
    ],
)
def test_flags_that_do_not_fit_are_refused(folder, tmp_path, flags, message):
    assert message in run(folder, tmp_path / "flow", *flags)
    assert not (tmp_path / "flow").exists()


def test_moving_starts_need_computed_flow():
    with pytest.raises(ConfigError, match="moving: found True, needs a folder of computed flow"):
        DataConfig("videos", flow="dis", moving=True)
