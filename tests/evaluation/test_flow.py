"""Flow of levels: errors by hand, between the frames that a level stands at, without padding; linear read-outs."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from hcml_jax.batch import Reads, blank_batch
from hcml_jax.evaluation.flow import (
    LinearReadout,
    fit_readouts,
    flow_between,
    flow_errors,
    flow_of_levels,
    frame_errors,
    make_flow_reader,
    read_out,
)
from hcml_jax.evaluation.intervals import PerVideo
from hcml_jax.methods.base import Encoded

STRIDES = types.MappingProxyType({"level0": 1, "level1": 2})


class Shifted:
    """A method whose clips are their own flow: its head sees it off by (3, 4), its features hold it at half size."""

    def frames_of(self, frames):
        return {level: np.arange(0, frames, stride) for level, stride in STRIDES.items()}

    def encode(self, variables, clips):
        maps = {}
        for level, flow in flow_of_levels(self, clips[:, :-1, ..., :2]).items():
            small = flow[:, :, ::2, ::2]
            last = jnp.full_like(small[:, :1], 99.0)  # of the last frame, paired with itself
            maps[level] = jnp.concatenate([small, last], axis=1)
        flow = {"level0": clips[:, :-1, ..., :2] + variables["shift"]}
        return Encoded({}, maps, flow)


def batches(valid=(True, True, False)):
    """Flow that is the same all over a frame; what is not valid is far off."""
    rng = np.random.default_rng(0)
    for _ in range(2):
        flow = np.broadcast_to(rng.normal(size=(3, 7, 1, 1, 2)), (3, 7, 4, 4, 2))
        flow = flow.astype(np.float32)
        clip = np.zeros((3, 8, 4, 4, 3), np.float32)
        clip[:, :-1, ..., :2] = flow
        flow = np.where(np.array(valid)[:, None, None, None, None], flow, 1e3).astype(np.float32)
        blank = blank_batch(3, clip.shape[1:], Reads(flow=True))
        yield blank._replace(clip=clip[:, None], flow=flow[:, None], valid=np.array(valid))


def scores(found):
    return jax.tree.map(lambda leaf: leaf.score, found, is_leaf=lambda leaf: isinstance(leaf, PerVideo))


def test_a_read_out_finds_flow_that_is_linear_in_the_features():
    rng = np.random.default_rng(0)
    motion = rng.normal(size=(2, 3, 4, 4, 5))
    flow = motion @ rng.normal(size=(5, 2)) + np.array([0.5, -1])
    readout = LinearReadout(ridge=1e-9)
    for clip in range(2):
        readout.add(motion[clip : clip + 1], flow[clip : clip + 1])
    found = read_out(readout.weights, jnp.asarray(motion, jnp.float32))
    np.testing.assert_allclose(found, flow, atol=1e-5)


def test_errors_are_means_over_valid_clips_and_over_a_levels_own_frames():
    shift = {"shift": np.array([3, 4], np.float32)}
    method = Shifted()
    readouts = fit_readouts(method, shift, batches())
    results = scores(flow_errors(method, make_flow_reader(method, shift, readouts), batches()))
    flow = np.concatenate([b.flow[b.valid] for b in batches()])[:, 0, :, 0, 0]
    over_two = flow[:, 0:6:2] + flow[:, 1:6:2]
    lengths = [np.linalg.norm(f, axis=-1).mean() for f in (flow, over_two)]
    assert results["epe_by_level"] == {"level0": pytest.approx(5, rel=1e-5)}
    assert results["epe"] == results["epe_by_level"]["level0"]
    assert results["epe_zero"] == pytest.approx(lengths[0], rel=1e-5)
    assert results["epe_zero_by_level"] == {
        "level0": pytest.approx(lengths[0], rel=1e-5),
        "level1": pytest.approx(lengths[1], rel=1e-5),
    }
    assert results["readout_epe"].keys() == STRIDES.keys()
    assert max(results["readout_epe"].values()) < 0.01


def test_the_headline_errors_are_of_one_level():
    class Upper(Shifted):
        """Its head stands at level 1, whose flow leads over two frames."""

        def encode(self, variables, clips):
            encoded = super().encode(variables, clips)
            return encoded._replace(flow={"level1": encoded.flow["level0"][:, 0:6:2]})

    method = Upper()
    results = scores(flow_errors(method, make_flow_reader(method, {"shift": np.zeros(2, np.float32)}, {}), batches()))
    assert results["epe"] == results["epe_by_level"]["level1"]
    assert results["epe_zero"] == results["epe_zero_by_level"]["level1"]
    assert results["epe_zero"] != results["epe_zero_by_level"]["level0"]


def test_flow_is_read_in_pixels_of_the_clips():
    method, shift = Shifted(), {"shift": np.zeros(2, np.float32)}
    readouts = fit_readouts(method, shift, batches())
    clips = next(batches()).clip[:, 0]
    heads, read = make_flow_reader(method, shift, readouts)(clips)
    np.testing.assert_allclose(heads["level0"], clips[:, :-1, ..., :2])
    np.testing.assert_allclose(read["level0"], heads["level0"], atol=0.02)
    assert read["level1"].shape == (3, 3, 4, 4, 2)
    assert make_flow_reader(method, shift, {})(clips)[1] == {}


@pytest.mark.parametrize("stride", [1, 2])
def test_frames_are_held_against_the_next_ones_warped_back(stride):
    """A texture that moves by whole pixels: true flow explains it but for the border, zero flow does not."""

    class Known:
        def frames_of(self, frames):
            return {"level0": np.arange(0, frames, stride)}

        def encode(self, variables, clips):
            pairs = (clips.shape[1] - 1) // stride
            flow = jnp.broadcast_to(jnp.array([2.0 * stride, 1.0 * stride]), (len(clips), pairs, *clips.shape[2:4], 2))
            return Encoded({}, {}, {"level0": flow})

    texture = gaussian_filter(np.random.default_rng(0).uniform(0, 255, (80, 80, 3)), (2, 2, 0)).clip(0, 255)
    clip = np.stack([texture[40 - t : 72 - t, 40 - 2 * t : 72 - 2 * t] for t in range(7)]).astype(np.uint8)
    blank = blank_batch(2, clip.shape)
    batch = blank._replace(clip=np.stack([clip, 0 * clip])[:, None], valid=np.array([True, False]))
    method = Known()
    found = scores(frame_errors(method, make_flow_reader(method, {}, {}), [batch], classical=True))
    for kind in ("l1", "psnr", "ssim"):
        assert set(found[kind]) == {"learnt", "zero", "classical"}
    frames = clip[::stride] / 255
    assert found["l1"]["zero"]["level0"] == pytest.approx(2 * abs(np.diff(frames, axis=0)).mean(), rel=1e-5)
    errors = [np.square(d).mean() for d in np.diff(frames, axis=0)]
    assert found["psnr"]["zero"]["level0"] == pytest.approx(np.mean(-10 * np.log10(errors)), rel=1e-5)
    assert found["l1"]["learnt"]["level0"] < 0.5 * found["l1"]["zero"]["level0"]
    assert found["ssim"]["learnt"]["level0"] > found["ssim"]["zero"]["level0"]
    assert found["psnr"]["classical"]["level0"] > found["psnr"]["zero"]["level0"] + 3


@pytest.mark.parametrize(
    ("length", "frames"), [(8, range(8)), (8, range(0, 8, 2)), (10, range(0, 10, 4)), (10, (0, 2, 3, 7)), (3, (0,))]
)
def test_flow_over_several_frames_is_chained(length, frames):
    """A zoom about the centre: over s frames, its factor to the power of s."""
    side, factor = 17, 1.1
    y, x = np.mgrid[:side, :side] - side // 2
    place = np.stack([x, y], -1).astype(np.float32)
    step = (factor - 1) * place + np.array([0.25, 0])
    flow = np.broadcast_to(step, (1, length - 1, side, side, 2))
    found = flow_between(flow, np.array(frames))
    assert found.shape == (1, len(frames) - 1, side, side, 2)
    inner = slice(4, -4)  # what leaves the frame takes the flow of its border
    for pair, gap in enumerate(np.diff(frames)):
        moved = place
        for _ in range(gap):
            moved = moved + (factor - 1) * moved + np.array([0.25, 0])
        np.testing.assert_allclose(found[0, pair, inner, inner], (moved - place)[inner, inner], rtol=1e-4, atol=1e-4)


def test_flow_over_several_frames_begins_at_the_frames_named():
    flow = np.arange(7.0, dtype=np.float32).reshape(1, 7, 1, 1, 1) * np.ones((1, 1, 9, 9, 2), np.float32) / 9
    centre = flow_between(flow, np.array([0, 2, 3, 6]))[0, :, 2, 2, 0]
    np.testing.assert_allclose(centre * 9, [0 + 1, 2, 3 + 4 + 5], rtol=1e-5)
