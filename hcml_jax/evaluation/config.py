"""The fields of `config.evaluation`."""

import dataclasses

from hcml_jax.config import ConfigError


@dataclasses.dataclass(frozen=True)
class EvaluationConfig:
    """How a run is evaluated.

    Attributes:
      split: the table's split that is classified; neighbours and probes learn from split "train".
      batch_size: clips at a time; 0: the training batch.
      neighbours: k of the nearest-neighbour classifier.
      figure_clips: how many clips the pictures show.
    """

    split: str = "test"
    batch_size: int = 0
    neighbours: int = 10
    figure_clips: int = 4

    def __post_init__(self):
        for field, least in (("neighbours", 1), ("figure_clips", 1), ("batch_size", 0)):
            value = getattr(self, field)
            if value < least:
                raise ConfigError(f"{field} must be {least} or more, not {value}")
