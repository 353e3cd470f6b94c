"""Optical flow in a level's features: the errors of its own head, and of a linear read-out of them."""

import functools
import operator
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hcml_jax import augment, cluster
from hcml_jax.batch import Batch
from hcml_jax.evaluation.baselines import dis_flow_of_clips
from hcml_jax.evaluation.intervals import PerVideo
from hcml_jax.methods.base import Method, Variables
from hcml_jax.models import paired
from hcml_jax.ops import backward_warp, end_point_error, psnr, resize_flow, ssim


def flow_between(flow, frames: np.ndarray) -> jax.Array:
    """Flow from each of these frames to the next of them, chained from flow over one frame, for levels strided in time.

    Args:
      flow: `[B, T - 1, H, W, 2]`, from each frame to the next, in pixels.
      frames: numbers of T' of the T frames, rising.

    Returns:
      `[B, T' - 1, H, W, 2]`.
    """
    flow = jnp.asarray(flow)
    starts, gaps = frames[:-1], np.diff(frames)
    total = flow[:, starts]
    for step in range(1, gaps.max(initial=1)):
        longer = gaps > step
        next_flow = flow[:, np.where(longer, starts + step, 0)]
        further = total + backward_warp(next_flow, total)[0]
        total = jnp.where(longer[:, None, None, None], further, total)
    return total


def flow_of_levels(method: Method, flow) -> dict[str, jax.Array]:
    """Level name -> `flow_between` the frames that the level's motion features stand at."""
    numbers = method.frames_of(flow.shape[1] + 1)
    return {level: flow_between(flow, frames) for level, frames in numbers.items()}


class LinearReadout:
    """Ridge regression from motion features to the flow at their place, in cells of their grid.

    It measures the flow in a level's features, even if no flow head trains that level (cf. HCML Figure 4).
    """

    def __init__(self, ridge: float = 1e-3):
        self._ridge = ridge
        self._gram = self._cross = 0.0

    def add(self, motion: np.ndarray, flow: np.ndarray) -> None:
        """Adds clips to learn from: motion `[B, T, H, W, C]`, flow on the same grid `[B, T, H, W, 2]`."""
        x = motion.reshape(-1, motion.shape[-1]).astype(np.float64)
        x = np.concatenate([x, np.ones((len(x), 1))], axis=1)
        self._gram = self._gram + x.T @ x
        self._cross = self._cross + x.T @ flow.reshape(-1, 2)

    @property
    def weights(self) -> np.ndarray:
        """float32 `[C + 1, 2]`, learnt from the clips of all processes; the last row is the bias."""
        gram, cross = (x.sum(0) for x in cluster.gather((self._gram[None], self._cross[None])))
        ridge = self._ridge * np.trace(gram) / len(gram) * np.eye(len(gram))
        return np.linalg.solve(gram + ridge, cross).astype(np.float32)


def read_out(weights, motion) -> jax.Array:
    """Flow `[B, T, H, W, 2]` of motion features `[B, T, H, W, C]` by the weights of a `LinearReadout`."""
    return motion.astype(jnp.float32) @ weights[:-1] + weights[-1]


def fit_readouts(method: Method, variables: Variables, batches: Iterable[Batch]) -> dict[str, np.ndarray]:
    """Level name -> weights of its linear read-out, learnt from batches with `flow`."""

    @jax.jit
    def examples(variables, clips, flow):
        """Level name -> features and the flow at their place."""
        truth = flow_of_levels(method, flow)
        return {
            level: (paired(maps), resize_flow(truth[level], *maps.shape[2:4]))
            for level, maps in method.encode(variables, clips).maps.items()
        }

    readouts: dict[str, LinearReadout] = {}
    for batch in batches:
        found = jax.device_get(examples(variables, batch.clip[:, 0], batch.flow[:, 0]))
        for level, (motion, flow) in found.items():
            readout = readouts.setdefault(level, LinearReadout())
            readout.add(motion[batch.valid], flow[batch.valid])
    return {level: readout.weights for level, readout in readouts.items()}


FlowReader = Callable[[Any], tuple[dict[str, jax.Array], dict[str, jax.Array]]]


def make_flow_reader(method: Method, variables: Variables, readouts: Mapping[str, Any]) -> FlowReader:
    """A function of clips -> (flow of heads, flow of linear read-outs).

    Both are level name -> `[B, T^l - 1, H, W, 2]` in pixels of the clips, between the frames that the level stands at.
    """

    @jax.jit
    def read(variables: Variables, readouts: Mapping[str, Any], clips: jax.Array):
        encoded = method.encode(variables, clips)
        read = {
            level: resize_flow(read_out(weights, paired(encoded.maps[level])), *clips.shape[2:4])
            for level, weights in readouts.items()
        }
        return encoded.flow, read

    return functools.partial(read, variables, readouts)


def flow_errors(method: Method, read: FlowReader, batches: Iterable[Batch]) -> dict[str, Any]:
    """End-point errors in pixels, of clips with `flow`, as `PerVideo`.

    A level's flow leads from the frame of each of its time steps to the next one's; zero flow has the same target.

    Returns:
      by level, "epe_by_level" (of the heads), "readout_epe" and "epe_zero_by_level"; "epe" and "epe_zero", those of the
      lowest level with a head ("epe_zero" alone, over one frame, where there is none).
    """

    @jax.jit
    def errors(heads, readout, flow):
        truth = flow_of_levels(method, flow)
        zero = {level: jnp.zeros_like(target) for level, target in truth.items()}
        kinds = {"epe_zero_by_level": zero, "epe_by_level": heads, "readout_epe": readout}
        return {"epe_zero": end_point_error(jnp.zeros_like(flow), flow).mean(1)} | {
            kind: {level: end_point_error(f, truth[level]).mean(1) for level, f in flows.items()}
            for kind, flows in kinds.items()
        }

    found = per_video(lambda batch: errors(*read(batch.clip[:, 0]), batch.flow[:, 0]), batches)
    heads = found["epe_by_level"]
    if not heads:
        return found
    lowest = min(heads)
    return found | {"epe": heads[lowest], "epe_zero": found["epe_zero_by_level"][lowest]}


def frame_errors(method: Method, read: FlowReader, batches: Iterable[Batch], classical: bool) -> dict[str, Any]:
    """How well flow explains a level's frames: errors of the next one warped back to each, as `PerVideo`.

    Args:
      method: method of the network.
      read: reader of its flow; only levels with a head are measured.
      batches: clips.
      classical: whether OpenCV's flow is measured as well.

    Returns:
      "l1" (CGM-Net Table 1: of values in [-1, 1]), "psnr" in dB and "ssim", each: whose flow ("learnt", "zero",
      "classical") -> level -> measure.
    """

    @jax.jit
    def measure(flow, frames):
        frames = augment.to_float(frames)
        target, following = frames[:, :-1], frames[:, 1:]
        warped, _ = backward_warp(following, flow)
        kinds = {"l1": 2 * abs(warped - target).mean((2, 3, 4)), "psnr": psnr(warped, target)}
        return {kind: values.mean(1) for kind, values in (kinds | {"ssim": ssim(warped, target)}).items()}

    def of_batch(batch: Batch) -> dict[str, Any]:
        clips, found = batch.clip[:, 0], {"l1": {}, "psnr": {}, "ssim": {}}
        for level, flow in read(clips)[0].items():
            frames = clips[:, method.frames_of(clips.shape[1])[level]]
            whose = {"learnt": flow, "zero": jnp.zeros_like(flow)}
            whose |= {"classical": dis_flow_of_clips(np.asarray(frames))} if classical else {}
            for name, given in whose.items():
                for kind, values in measure(given, frames).items():
                    found[kind].setdefault(name, {})[level] = values
        return found

    return per_video(of_batch, batches)


def per_video(measure: Callable[[Batch], Any], batches: Iterable[Batch]) -> dict[str, Any]:
    """Apply `measure` to all batches; return its arrays `[B]` of all processes as `PerVideo`, without padding."""
    found, index = [], []
    for batch in batches:
        found.append(jax.tree.map(operator.itemgetter(batch.valid), jax.device_get(measure(batch))))
        index.append(batch.index[batch.valid])
    joined = jax.tree.map(lambda *parts: np.concatenate(parts), *found)
    joined, index = cluster.gather((joined, np.concatenate(index)))
    order = np.argsort(index)
    return jax.tree.map(lambda values: PerVideo(values[order], index[order]), joined)
