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
import pytest

jax.config.update("jax_numpy_dtype_promotion", "strict")


@pytest.fixture
def key():
    """A random key."""
    return jax.random.key(0)
