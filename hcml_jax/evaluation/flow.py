"""How much optical flow a level holds: the error of its own head, and of a linear read-out of its features."""

import operator
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hcml_jax import cluster
from hcml_jax.batch import Batch
from hcml_jax.methods.base import Method, Variables
from hcml_jax.ops import backward_warp, end_point_error, resize_flow


def flow_between(flow, frames: np.ndarray) -> jax.Array:
    """Flow from each of these frames to the next, chained from flow over one: what a level that strides in time sees.

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

    It shows what flow the features of a level hold, also of levels that no flow head teaches (cf. HCML Figure 4).
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
            level: (_paired(maps), resize_flow(truth[level], *maps.shape[2:4]))
            for level, maps in method.encode(variables, clips).maps.items()
        }

    readouts: dict[str, LinearReadout] = {}
    for batch in batches:
        found = jax.device_get(examples(variables, batch.clip[:, 0], batch.flow[:, 0]))
        for level, (motion, flow) in found.items():
            readout = readouts.setdefault(level, LinearReadout())
            readout.add(motion[batch.valid], flow[batch.valid])
    return {level: readout.weights for level, readout in readouts.items()}


def make_flow_reader(method: Method) -> Callable:
    """A jitted function (variables, readouts, clips) -> (flow of heads, flow of linear read-outs).

    Both are level name -> `[B, T^l - 1, H, W, 2]` in pixels of the clips, between the frames that the level stands at.
    """

    @jax.jit
    def read(variables: Variables, readouts: Mapping[str, Any], clips: jax.Array):
        encoded = method.encode(variables, clips)
        read = {
            level: resize_flow(read_out(weights, _paired(encoded.maps[level])), *clips.shape[2:4])
            for level, weights in readouts.items()
        }
        return encoded.flow, read

    return read


def flow_results(
    method: Method, variables: Variables, readouts: Mapping[str, Any], batches: Iterable[Batch]
) -> dict[str, Any]:
    """End-point errors in pixels, means over clips with `flow`.

    A level's flow leads from each of the frames that it stands at to the next; its zero flow is held to the same.

    Returns:
      by level, "epe_by_level" (of the heads), "readout_epe" and "epe_zero_by_level"; "epe" and "epe_zero", those of the
      lowest level with a head ("epe_zero" alone, over one frame, where there is none).
    """
    read = make_flow_reader(method)

    @jax.jit
    def errors(variables, readouts, clips, flow):
        heads, readout = read(variables, readouts, clips)
        truth = flow_of_levels(method, flow)
        zero = {level: jnp.zeros_like(target) for level, target in truth.items()}
        kinds = {"epe_zero_by_level": zero, "epe_by_level": heads, "readout_epe": readout}
        return {"epe_zero": end_point_error(jnp.zeros_like(flow), flow).mean(1)} | {
            kind: {level: end_point_error(f, truth[level]).mean(1) for level, f in flows.items()}
            for kind, flows in kinds.items()
        }

    found = []
    for batch in batches:
        given = batch.clip[:, 0], batch.flow[:, 0]
        by_clip = jax.device_get(errors(variables, readouts, *given))
        found.append(jax.tree.map(operator.itemgetter(batch.valid), by_clip))
    by_clip = cluster.gather(jax.tree.map(lambda *errors: np.concatenate(errors), *found))
    results = jax.tree.map(lambda errors: float(errors.mean()), by_clip)
    heads = results["epe_by_level"]
    if not heads:
        return results
    lowest = min(heads)
    return results | {"epe": heads[lowest], "epe_zero": results["epe_zero_by_level"][lowest]}


def _paired(maps: jax.Array) -> jax.Array:
    """Motion features but those of the last frame, which is paired with itself: it sees no motion."""
    return maps[:, :-1]
