"""Networks that compute flow on the device: RAFT with imported weights, and level 0 of HCML."""

import dataclasses
import pathlib
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from hcml_jax.config import ConfigError
from hcml_jax.inference import Model, load
from hcml_jax.models.raft import RAFT, SMALLEST
from hcml_jax.weights.import_weights import RAFTS, is_imported, read_imported
from hcml_jax.weights.variables import digest


@dataclasses.dataclass(frozen=True)
class FlowNetwork:
    """A jittable function of clips; its weights are constants.

    Attributes:
      of_clips: clips, uint8 `[N, T, H, W, 3]` -> flow `[N, T - 1, H, W, 2]`, float32, (u right, v down) in pixels, from
        each frame to the next.
      digest: of its weights.
      least: the shortest side of frames that it takes, in pixels.
    """

    of_clips: Callable[[jax.Array], jax.Array]
    digest: str
    least: int

    def __call__(self, clips: jax.Array) -> jax.Array:
        """See `of_clips`."""
        return self.of_clips(clips)


def flow_network(name: str) -> FlowNetwork:
    """The network of a name: "raft:DIR", imported weights; "hcml:DIR" or "hcml:sprites", level 0 of what `load` takes.

    Raises:
      ConfigError: the name is no network's, DIR holds something else, or a network whose flow depends on more frames
        than the pair.
      CheckpointError, WeightsError: as `load` and `read_imported` do.
    """
    kind, _, source = name.partition(":")
    makers = {"raft": _raft, "hcml": _level0}
    if kind not in makers or not source:
        raise ConfigError(f"flow is computed by raft:DIR (imported weights) or hcml:DIR (a run), not by {name!r}")
    try:
        return makers[kind](source)
    except ConfigError as error:
        raise ConfigError(f"flow by {name}: {error}") from error


def _raft(source: str) -> FlowNetwork:
    folder = pathlib.Path(source)
    if not is_imported(folder):
        raise ConfigError(f"no weights are in {folder}; hcml_jax.weights.import_weights writes them")
    variables, _ = read_imported(folder)
    if "raft" not in variables["params"]:
        raise ConfigError(f"these weights are a backbone's, not one of {', '.join(RAFTS)}")
    given = {collection: tree["raft"] for collection, tree in variables.items()}
    network = RAFT("large" if "mask_predictor" in given["params"] else "small")
    return FlowNetwork(lambda clips: network.apply(given, clips.astype(jnp.float32) / 255), digest(variables), SMALLEST)


def _level0(source: str) -> FlowNetwork:
    model = load(source)
    clips = jax.ShapeDtypeStruct((1, *model.clip_shape), np.uint8)
    if "level0" not in jax.eval_shape(model.method.encode, model.variables, clips).flow:
        raise ConfigError("this network's level 0 gives no flow")
    method, variables = model.method, jax.device_get(model.variables)  # on the host: it serves any mesh
    shortest, *sides = method.config.backbone.bare.shortest_clip

    def flow(clips: jax.Array) -> jax.Array:
        # Frames after a pair do not change its flow, or this network is rejected below.
        missing = max(0, shortest - clips.shape[1])
        longer = jnp.concatenate([clips, jnp.repeat(clips[:, -1:], missing, axis=1)], axis=1)
        return method.encode(variables, longer).flow["level0"][:, : clips.shape[1] - 1]

    _check_looks_at_pairs(model, flow, (max(shortest, 4), *sides))
    return FlowNetwork(flow, digest(variables), max(sides))


def _check_looks_at_pairs(model: Model, flow: Callable, clip: tuple[int, int, int]) -> None:
    """Raise ConfigError unless the flow from frame 1 to frame 2 of a clip `(T, H, W)` is independent of other frames: a
    backbone may have strides, or kernels, over time below its level 0."""
    steps = np.diff(model.method.frames_of(clip[0])["level0"])
    frames = np.random.default_rng(0).integers(0, 256, (1, *clip, 3), dtype=np.uint8)
    others = np.concatenate([255 - frames[:, :1], frames[:, 1:3], 255 - frames[:, 3:]], axis=1)
    if (steps == 1).all():
        first, second = np.asarray(jax.jit(flow)(np.concatenate([frames, others])))[:, 1]
        if np.allclose(first, second, rtol=1e-3, atol=1e-3):
            return
    raise ConfigError("this network's level 0 looks at more than two frames, one after the other, at a time")
