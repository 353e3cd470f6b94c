"""How much optical flow a level holds: the error of its own head, and of a linear read-out of its features."""

import operator
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hcml_jax import cluster
from hcml_jax.methods.base import Method, Variables
from hcml_jax.ops import backward_warp, end_point_error, resize_flow


def flow_over(flow, stride: int) -> jax.Array:
    """Flow over `stride` frames, chained from flow over one: what a level that strides in time sees.

    Args:
      flow: `[B, T - 1, H, W, 2]`, from each frame to the next, in pixels.
      stride: frames.

    Returns:
      `[B, (T - 1) // stride, H, W, 2]`, from frames 0, stride, ... to frames stride, 2 stride, ...
    """
    flow = jnp.asarray(flow)
    pairs = flow.shape[1] // stride
    total = flow[:, ::stride][:, :pairs]
    for step in range(1, stride):
        total = total + backward_warp(flow[:, step::stride][:, :pairs], total)[0]
    return total


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


def fit_readouts(
    method: Method, variables: Variables, batches: Iterable[Mapping[str, Any]]
) -> dict[str, np.ndarray]:
    """Level name -> weights of its linear read-out, learnt from batches with `flow`."""

    @jax.jit
    def examples(variables, clips, flow):
        """Level name -> features and the flow at their place."""
        pairs = {}
        for level, motion in _paired_motion(method, variables, clips).items():
            over = flow_over(flow, method.frame_strides[level])
            pairs[level] = motion, resize_flow(over, *motion.shape[2:4])
        return pairs

    readouts: dict[str, LinearReadout] = {}
    for batch in batches:
        found = jax.device_get(examples(variables, batch["clip"], batch["flow"]))
        for level, (motion, flow) in found.items():
            readout = readouts.setdefault(level, LinearReadout())
            readout.add(motion[batch["valid"]], flow[batch["valid"]])
    return {level: readout.weights for level, readout in readouts.items()}


def make_flow_reader(method: Method) -> Callable:
    """A jitted function (variables, readouts, clips) -> (flow of heads, flow of linear read-outs).

    Both are level name -> `[B, T^l - 1, H, W, 2]` in pixels of the clips, over as many frames as the level strides.
    """

    @jax.jit
    def read(variables: Variables, readouts: Mapping[str, Any], clips: jax.Array):
        heads = method.flow(variables, clips) if hasattr(method, "flow") else {}
        motion = _paired_motion(method, variables, clips) if readouts else {}
        read = {
            level: resize_flow(read_out(weights, motion[level]), *clips.shape[2:4])
            for level, weights in readouts.items()
        }
        return heads, read

    return read


def flow_results(
    method: Method,
    variables: Variables,
    readouts: Mapping[str, Any],
    batches: Iterable[Mapping[str, Any]],
) -> dict[str, Any]:
    """End-point errors in pixels, means over clips with `flow`.

    A level's flow leads over as many frames as the level strides, and so does its zero flow.

    Returns:
      by level, "epe_by_level" (of the heads), "readout_epe" and "epe_zero_by_level"; "epe" and "epe_zero", those of the
      lowest level with a head ("epe_zero" alone, over one frame, where there is none).
    """
    read = make_flow_reader(method)

    @jax.jit
    def errors(variables, readouts, clips, flow):
        heads, readout = read(variables, readouts, clips)
        truth = {level: flow_over(flow, s) for level, s in method.frame_strides.items()}
        zero = {level: jnp.zeros_like(target) for level, target in truth.items()}
        kinds = {"epe_zero_by_level": zero, "epe_by_level": heads, "readout_epe": readout}
        return {"epe_zero": end_point_error(jnp.zeros_like(flow), flow).mean(1)} | {
            kind: {level: end_point_error(f, truth[level]).mean(1) for level, f in flows.items()}
            for kind, flows in kinds.items()
        }

    found = []
    for batch in batches:
        by_clip = jax.device_get(errors(variables, readouts, batch["clip"], batch["flow"]))
        found.append(jax.tree.map(operator.itemgetter(batch["valid"]), by_clip))
    by_clip = cluster.gather(jax.tree.map(lambda *errors: np.concatenate(errors), *found))
    results = jax.tree.map(lambda errors: float(errors.mean()), by_clip)
    heads = results["epe_by_level"]
    if not heads:
        return results
    lowest = min(heads)
    return results | {"epe": heads[lowest], "epe_zero": results["epe_zero_by_level"][lowest]}


def _paired_motion(method: Method, variables: Variables, clips) -> dict[str, jax.Array]:
    """Motion features but those of the last frame, which is paired with itself: it sees no motion."""
    return {level: maps[:, :-1] for level, maps in method.motion(variables, clips).items()}
