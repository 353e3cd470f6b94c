"""Random numbers from named streams: no key serves two purposes."""

import zlib

import jax


def stream(key: jax.Array, name: str) -> jax.Array:
    """The key of a purpose, for example "init", a stage's name or "flip"; `key` itself is used for nothing else."""
    return jax.random.fold_in(key, zlib.crc32(name.encode()))


def streams(key: jax.Array, *names: str) -> dict[str, jax.Array]:
    """Name -> its stream: what `apply` of a module takes as `rngs`."""
    return {name: stream(key, name) for name in names}


def step_key(seed: int, name: str, step: jax.Array | int) -> jax.Array:
    """The key of one step of a purpose."""
    return jax.random.fold_in(stream(jax.random.key(seed), name), step)
