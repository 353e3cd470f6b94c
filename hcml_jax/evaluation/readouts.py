"""Read-outs: feature maps, pooled to a grid in time, height and width, as features of a clip."""

import re
from typing import NamedTuple

import jax

from hcml_jax.config import ConfigError
from hcml_jax.ops import avg_pool_to


class Readout(NamedTuple):
    """A grid that a map is pooled to.

    Attributes:
      time: cells in time; None: as many as the map has frames.
      height, width: cells in space.
    """

    time: int | None = 1
    height: int = 1
    width: int = 1


def parse_readout(name: str) -> Readout:
    """The grid of a name: "3x3" (height, width; time is averaged), "Tx1x1" (every frame apart) or "2x3x3".

    Raises:
      ConfigError: the name is none of these.
    """
    found = re.fullmatch(r"(?:(T|[1-9]\d*)x)?([1-9]\d*)x([1-9]\d*)", name)
    if not found:
        raise ConfigError(f"no read-out is called {name!r}: name a grid, such as '3x3', 'Tx1x1' or '2x3x3'")
    time, height, width = found.groups(default="1")
    return Readout(None if time == "T" else int(time), int(height), int(width))


def pool(features: jax.Array, readout: Readout) -> jax.Array:
    """The means of a map over the cells of a grid, as one vector a clip.

    Args:
      features: `[B, T, H, W, C]`, floating.
      readout: the grid; where it is finer than the map, the map's own.

    Returns:
      `[B, time * height * width * C]`, C last; sums are taken in float32.
    """
    clips, *size, _ = features.shape
    grid = (min(cells or length, length) for cells, length in zip(readout, size, strict=False))
    pooled = avg_pool_to(features, *grid)
    return pooled.reshape(clips, -1)
