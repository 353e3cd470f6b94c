"""A backbone's weights as `.safetensors` under published names, for PyTorch."""

import pathlib
from collections.abc import Mapping
from typing import Any

import flax.traverse_util
import numpy as np
import safetensors.numpy

from hcml_jax.weights.published import PublishedLayout, published_layouts


def save_tensors(path: pathlib.Path, arch: str, variables: Mapping[str, Any]) -> None:
    """Writes the variables of "backbone" and, where there is one, "classifier".

    Tensors have the names and shapes of the package that publishes `arch` (torchvision's, where it does), so that its
    network's `load_state_dict` takes them; the file's metadata names it. Modules that it lacks, such as motion blocks,
    keep this project's names with dots, kernels in PyTorch's order.

    Args:
      path: the file.
      arch: the backbone's name.
      variables: {"params": {"backbone": ..., "classifier": ...}, "batch_stats": ...}.
    """
    own = PublishedLayout("hcml_jax", (), mean=(0.0,) * 3, std=(1.0,) * 3)
    layout = next(iter(published_layouts(arch)), own)
    tensors = {}
    for (_, owner, *rest), array in flax.traverse_util.flatten_dict(variables).items():
        if owner in ("backbone", "classifier"):
            inner = tuple(rest) if owner == "backbone" else (owner, *rest)
            tensors[layout.name(inner)] = layout.export(inner, np.asarray(array))
    metadata = {"network": arch, "names": layout.source, "format": "pt"}
    path.write_bytes(safetensors.numpy.save(tensors, metadata))
