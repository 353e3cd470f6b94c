"""Strict numerics: no implicit dtype promotion, and warnings are errors."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import jax
import pytest

jax.config.update("jax_numpy_dtype_promotion", "strict")


@pytest.fixture
def key():
    """A random key."""
    return jax.random.key(0)
