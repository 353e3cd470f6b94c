"""Networks that compute flow on the device: RAFT with imported weights, and level 0 of HCML."""

import pathlib
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from hcml_jax.config import ConfigError
from hcml_jax.inference import load
from hcml_jax.models.raft import RAFT
from hcml_jax.weights.import_weights import RAFTS, is_imported, read_imported

FlowNetwork = Callable[[jax.Array], jax.Array]


def flow_network(name: str) -> FlowNetwork:
    """The network of a name: "raft:DIR", imported weights; "hcml:DIR" or "hcml:sprites", level 0 of what `load` takes.

    Returns:
      A jittable function of clips, uint8 `[N, T, H, W, 3]`: flow `[N, T - 1, H, W, 2]`, float32, (u right, v down) in
      pixels, from each frame to the next. Its weights are constants.

    Raises:
      ConfigError: the name is no network's, or DIR holds something else.
    """
    kind, _, source = name.partition(":")
    makers = {"raft": _raft, "hcml": _level0}
    if kind not in makers or not source:
        raise ConfigError(f"flow is computed by raft:DIR (imported weights) or hcml:DIR (a run), not by {name!r}")
    return makers[kind](source)


def _raft(source: str) -> FlowNetwork:
    folder = pathlib.Path(source)
    if not is_imported(folder):
        raise ConfigError(f"raft:{source}: no weights are there; hcml_jax.weights.import_weights writes them")
    variables, _ = read_imported(folder)
    if "raft" not in variables["params"]:
        raise ConfigError(f"raft:{source}: these weights are a backbone's, not one of {', '.join(RAFTS)}")
    given = {collection: tree["raft"] for collection, tree in variables.items()}
    network = RAFT("large" if "mask_predictor" in given["params"] else "small")
    return lambda clips: network.apply(given, clips.astype(jnp.float32) / 255)


def _level0(source: str) -> FlowNetwork:
    model = load(source)
    if not model.gives_flow:
        raise ConfigError(f"hcml:{source}: this network gives no flow")
    method, variables = model.method, jax.device_get(model.variables)  # on the host: it serves any mesh
    shortest = method.config.backbone.bare.shortest_clip[0]
    if (np.diff(method.frames_of(shortest)["level0"]) != 1).any():
        raise ConfigError(f"hcml:{source}: this network's flow is not from each frame to the next: it strides in time")

    def flow(clips: jax.Array) -> jax.Array:
        # Level 0 looks from each frame to the next alone: what is behind them makes no difference.
        missing = max(0, shortest - clips.shape[1])
        longer = jnp.concatenate([clips, jnp.repeat(clips[:, -1:], missing, axis=1)], axis=1)
        return method.encode(variables, longer).flow["level0"][:, : clips.shape[1] - 1]

    return flow
