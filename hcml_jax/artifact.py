"""A network as one file that runs without this package, on CPU, GPU and TPU: jax alone reads it.

call = jax.export.deserialize(pathlib.Path("model.jaxexport").read_bytes()).call
call(clips)  # uint8 [B, T, H, W, 3] -> {"features": {name: [B, C]}, "probabilities": [B, classes]}
"""

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import export as jax_export

from hcml_jax.files import replace_text
from hcml_jax.methods.base import Method, Variables
from hcml_jax.models.convolution import as_defined

PROGRAM, DESCRIPTION = "model.jaxexport", "model.json"
PLATFORMS = ("cpu", "cuda", "tpu")


def save_artifact(
    folder: pathlib.Path,
    method: Method,
    variables: Variables,
    classes: Sequence[str],
    described: Mapping[str, Any],
    chosen: str = "",
) -> None:
    """Write `model.jaxexport`, a program with its weights for any number of clips, and `model.json`, which describes
    how to take clips from videos, and lists the classes.

    Convolutions are those for devices other than CPUs; on a CPU `hcml_jax.load` is faster.

    Args:
      folder: target folder.
      method, variables: those of the network.
      classes: names in the order of the probabilities; (): it has not learnt to classify, and outputs only features.
      described: description of its run, from `Workdir.read`.
      chosen: see `probabilities`.
    """
    (batch,) = jax_export.symbolic_shape("batch")
    clips = jax.ShapeDtypeStruct((batch, *described["clip_shape"]), jnp.uint8)

    def call(clips):
        encoded = method.encode(variables, clips)
        found = {"features": encoded.features}
        return found | ({"probabilities": probabilities(encoded.logits, method, chosen)} if classes else {})

    with as_defined():
        program = jax_export.export(jax.jit(call), platforms=PLATFORMS)(clips)
    (folder / PROGRAM).write_bytes(program.serialize())
    data = described["config"]["data"]
    sampling = {name: data[name] for name in ("frames", "stride", "crop")} | {"short_side": data["short_side"][0]}
    about = {
        "input": f"clips, uint8 [batch, {', '.join(map(str, described['clip_shape']))}], RGB, 0 to 255",
        "sampling": sampling | {"place": "middle of the video, centre of the frame; normalisation is in the program"},
        "classes": list(classes),
        "platforms": list(PLATFORMS),
    }
    replace_text(folder / DESCRIPTION, json.dumps(about, indent=1) + "\n")


def probabilities(logits: jax.Array, method: Method, chosen: str) -> jax.Array:
    """Class probabilities `[B, classes]` from a method's scores; with several `classifiers`, of the chosen one."""
    return jax.nn.softmax(logits[:, method.classifiers.index(chosen)] if chosen else logits)
