"""Strict numerics: no implicit dtype promotion, and warnings are errors (setup.cfg)."""

import os
import pathlib

# Most of the suite's time is XLA's: compile each program once, for this process and those it starts.
CACHE = pathlib.Path(__file__).parent.parent / ".pytest_cache" / "xla"
os.environ["JAX_COMPILATION_CACHE_DIR"] = str(CACHE)
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.1"
os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "0"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# Compiling takes half the time unoptimised; what tests run is small.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from hcml_jax.models.raft import RAFT
from hcml_jax.weights.import_weights import import_weights
from hcml_jax.weights.published import published_layouts

jax.config.update("jax_numpy_dtype_promotion", "strict")


@pytest.fixture
def key():
    """A random key."""
    return jax.random.key(0)


@pytest.fixture
def raft(tmp_path):
    """A folder of imported weights, of a random small RAFT."""
    clip = np.zeros((1, 2, 128, 128, 3), np.float32)
    variables = jax.jit(RAFT("small", updates=1).init)(jax.random.key(0), clip)
    (layout,) = published_layouts("raft_small")
    paths = jax.tree_util.tree_leaves_with_path(variables["params"])
    keys = [(tuple(key.key for key in path), np.asarray(leaf)) for path, leaf in paths]
    save_file({layout.name(path): layout.export(path, leaf) for path, leaf in keys}, tmp_path / "raft.safetensors")
    import_weights(tmp_path / "raft.safetensors", "raft_small", tmp_path / "raft")
    return tmp_path / "raft"
