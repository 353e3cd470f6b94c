"""Random keys as a pure function of (seed, name, step)."""

import zlib

import jax


def named_key(seed: int, name: str) -> jax.Array:
    """The key of a purpose, for example "init" or a stage's name."""
    return jax.random.fold_in(jax.random.key(seed), zlib.crc32(name.encode()))


def step_key(seed: int, name: str, step: jax.Array | int) -> jax.Array:
    """The key of one step of a purpose."""
    return jax.random.fold_in(named_key(seed, name), step)
