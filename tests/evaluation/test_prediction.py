"""Predicted frames against the true ones: by hand, where the video goes on; and by flow."""

import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from hcml_jax import augment
from hcml_jax.batch import Reads, blank_batch
from hcml_jax.evaluation.prediction import by_flow, copies, prediction_errors


def brighter(clips):
    """The next frame is this one, brighter by a tenth of the range."""
    return augment.to_float(clips) + 0.1


def test_measures_are_those_of_other_libraries():
    rng = np.random.default_rng(0)
    blank = blank_batch(3, (4, 16, 16, 3), Reads(future=1))
    batch = blank._replace(
        clip=rng.integers(0, 256, blank.clip.shape, dtype=np.uint8),
        future=rng.integers(0, 256, blank.future.shape, dtype=np.uint8),
        consecutive=np.ones_like(blank.consecutive),
        index=np.arange(3, dtype=np.int32),
        valid=np.array([True, True, False]),
    )
    batch.consecutive[1, 0, 1:] = False  # the video begins again behind its second frame
    found = prediction_errors({"learnt": brighter, "copying": copies}, [batch])
    frames = np.concatenate([batch.clip, batch.future], axis=2)[:, 0] / 255
    for name, images in (("learnt", np.minimum(frames[:, :-1] + 0.1, 1)), ("copying", frames[:, :-1])):
        for kind, measure in {
            "l1": lambda made, true: 2 * np.abs(made - true).mean(),
            "psnr": lambda made, true: peak_signal_noise_ratio(true, made, data_range=1),
            "ssim": lambda made, true: structural_similarity(
                made, true, channel_axis=-1, data_range=1, gaussian_weights=True, use_sample_covariance=False
            ),
        }.items():
            pairs = [[measure(images[b, t], frames[b, t + 1]) for t in range(4)] for b in range(2)]
            seen, unseen = (found[part][kind][name].values for part in ("seen", "unseen"))
            np.testing.assert_allclose(seen, [np.mean(pairs[0][:3]), pairs[1][0]], rtol=1e-3, atol=1e-5)
            assert unseen[0] == pytest.approx(pairs[0][3], rel=1e-3, abs=1e-5)
            assert np.isnan(unseen[1])


def test_without_the_frame_behind_a_clip_those_seen_are_measured():
    rng = np.random.default_rng(0)
    whole, alone = (blank_batch(2, (4, 16, 16, 3), reads) for reads in (Reads(future=1), Reads()))
    clip = rng.integers(0, 256, whole.clip.shape, dtype=np.uint8)
    given = {"clip": clip, "index": np.arange(2, dtype=np.int32), "valid": np.ones(2, bool)}
    whole = whole._replace(**given, consecutive=np.ones_like(whole.consecutive))
    alone = alone._replace(**given, consecutive=np.ones_like(alone.consecutive))
    expected, found = (prediction_errors({"copying": copies}, [batch]) for batch in (whole, alone))
    assert [*found] == ["seen"]
    for kind in ("l1", "psnr", "ssim"):
        one, other = (errors["seen"][kind]["copying"].values for errors in (expected, found))
        np.testing.assert_allclose(one, other, rtol=1e-6)


def test_by_flow_a_frame_goes_where_the_next_one_is():
    """A picture that moves by ever more: the last step is taken as long as the one before."""
    picture = np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8)
    picture[20, 20] = 255  # by which its place is found
    places = np.array([(0, 0), (1, -2), (3, 0), (3, 4)])
    clip = np.stack([np.roll(picture, place, (0, 1)) for place in places])

    def flow_of(clips):
        found = np.array([np.unravel_index(frame.sum(-1, dtype=int).argmax(), (40, 40)) for frame in clips[0]])
        steps = np.diff(found, axis=0)[:, ::-1]  # across, down
        return np.broadcast_to(steps[None, :, None, None], (1, 3, 40, 40, 2)).astype(np.float32)

    made = by_flow(flow_of)(clip[None])[0]
    expected = [*clip[1:], np.roll(picture, (3, 8), (0, 1))]
    for found, true in zip(made, expected, strict=True):
        np.testing.assert_allclose(found[8:-8, 8:-8], true[8:-8, 8:-8] / 255, atol=1e-5)
