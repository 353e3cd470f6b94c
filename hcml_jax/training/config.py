"""The fields of `config.training`."""

import dataclasses

from hcml_jax.config import ConfigError


@dataclasses.dataclass(frozen=True)
class TrainingConfig:
    """How a run proceeds; what is trained, and for how long, is the method's.

    Attributes:
      batch_size: clips a step, over all devices and hosts.
      shard_state: whether parameters and optimizer state are split over the devices, for networks whose state one
        device cannot hold; costs communication every step.
      log_every: steps between records in `metrics.jsonl`.
      checkpoint_every: steps between checkpoints (and validations); a multiple of `log_every`.
      keep: how many of the last checkpoints are kept, beside the best and the end of each stage.
      validation_split: the table's split on which the stage's loss is validated, which is not reported; "": none.
      validation_batches: how many batches of it.
      validate_on_reported: whether validation on the split that `evaluation` reports is allowed nevertheless.
      first_stage: the stage at which the run begins, with the variables of `init_from`; "": the method's first.
    """

    batch_size: int = 8
    shard_state: bool = False
    log_every: int = 50
    checkpoint_every: int = 500
    keep: int = 2
    validation_split: str = ""
    validation_batches: int = 8
    validate_on_reported: bool = False
    first_stage: str = ""

    def __post_init__(self):
        for name in ("batch_size", "log_every", "checkpoint_every", "keep", "validation_batches"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be 1 or more, not {getattr(self, name)}")
        if self.checkpoint_every % self.log_every:
            raise ConfigError(
                f"checkpoint_every ({self.checkpoint_every}) must be a multiple of log_every "
                f"({self.log_every}), so that no record spans a checkpoint"
            )
