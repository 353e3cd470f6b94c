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
        if self.neighbours < 1:
            raise ConfigError(f"neighbours must be 1 or more, not {self.neighbours}")
        if self.figure_clips < 1:
            raise ConfigError(f"figure_clips must be 1 or more, not {self.figure_clips}")
        if self.batch_size < 0:
            raise ConfigError(f"batch_size must be 0 or more, not {self.batch_size}")
