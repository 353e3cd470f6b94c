"""A network's variables as one `.safetensors` file, under this project's names."""

import hashlib
import pathlib
from collections.abc import Mapping
from typing import Any

import flax.traverse_util
import jax
import numpy as np
import safetensors
import safetensors.numpy

from hcml_jax.weights.torch_files import WeightsError

VARIABLES = "variables.safetensors"


def save_variables(path: pathlib.Path, variables: Any) -> None:
    """Writes variables; an array is named by its place, such as "params/backbone/stem/conv/kernel"."""
    arrays = flax.traverse_util.flatten_dict(variables, sep="/")
    path.write_bytes(safetensors.numpy.save({name: np.asarray(array) for name, array in arrays.items()}))


def read_variables(path: pathlib.Path) -> dict[str, Any]:
    """The variables of a file, as numpy arrays.

    Raises:
      WeightsError: if it is damaged.
    """
    try:
        arrays = safetensors.numpy.load(path.read_bytes())
    except (safetensors.SafetensorError, OSError) as error:
        raise WeightsError(f"{path} is damaged ({error!r}): import or export the weights again") from error
    return flax.traverse_util.unflatten_dict(arrays, sep="/")


def digest(variables: Mapping[str, Any]) -> str:
    """A hash of all arrays and their paths; any change of them changes it."""
    found = hashlib.sha256()
    for path, array in sorted(flax.traverse_util.flatten_dict(jax.device_get(variables), sep="/").items()):
        found.update(f"{path} {array.dtype} {array.shape}".encode())
        found.update(np.ascontiguousarray(array))
    return found.hexdigest()
