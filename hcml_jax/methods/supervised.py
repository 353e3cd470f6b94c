"""Plain action recognition: a backbone, with or without motion blocks, and a classifier (HCML Table 2)."""

import dataclasses
import functools

import jax.numpy as jnp

from hcml_jax.augment import PhotometricConfig
from hcml_jax.config import ConfigError, nearest
from hcml_jax.methods.base import Schedule, Stage, Term, check_dtype, everything
from hcml_jax.methods.recognition import Forward, Recognition, classification_loss, random_crop
from hcml_jax.models import BackboneConfig, Recogniser


@dataclasses.dataclass(frozen=True)
class SupervisedConfig:
    """Fields of the method "supervised".

    Attributes:
      stages: {"supervised": its schedule}.
      backbone: which backbone.
      motion_blocks: the stages after which a motion block stands.
      flip: whether clips are mirrored at random (a flip changes labels such as "left").
      batch_norm_group: clips over which batch statistics are taken; 0: the global batch.
      dropout: dropout rate of the embedding before the classifier, in training.
      area: (least, most) share of the frame that a training clip shows: see `Reads`.
      photometric: how the colours of training clips change; None: they do not.
      dtype: what convolutions compute in, "float32" or "bfloat16".
    """

    stages: dict[str, Schedule]
    backbone: BackboneConfig = BackboneConfig()
    motion_blocks: tuple[str, ...] = ()
    flip: bool = False
    batch_norm_group: int = 0
    dropout: float = 0.0
    area: tuple[float, float] | None = None
    photometric: PhotometricConfig | None = None
    dtype: str = "float32"

    def __post_init__(self):
        check_dtype(self.dtype)
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"dropout must be in [0, 1), not {self.dropout}")
        random_crop(self.area)
        for stage in self.motion_blocks:
            stages = self.backbone.stages
            if stage not in stages:
                raise ConfigError(f"motion_blocks: no stage is called {stage!r}. {nearest(stage, stages)}")
        if set(self.stages) != {"supervised"}:
            raise ConfigError(f"stages must be exactly 'supervised', not {sorted(self.stages)}")


@dataclasses.dataclass(frozen=True)
class Supervised(Recognition):
    """The baseline: one stage that trains everything on labelled clips."""

    config: SupervisedConfig
    num_classes: int

    photometric = property(lambda self: self.config.photometric)

    def __post_init__(self):
        if self.num_classes < 2:
            raise ConfigError("the method 'supervised' needs a table with labels of 2 classes or more")

    @functools.cached_property
    def network(self) -> Recogniser:
        """The Linen module whose variables this method works on."""
        config = self.config
        options = {"motion_blocks": config.motion_blocks, "dtype": jnp.dtype(config.dtype)}
        return Recogniser(config.backbone.build(**options), self.num_classes, config.dropout)

    @property
    def stages(self) -> tuple[Stage, ...]:
        """Its only stage."""
        return (
            Stage(
                name="supervised",
                schedule=self.config.stages["supervised"],
                trainable=everything,
                terms={"classification": Term(_classification, classifies=True)},
                reads=random_crop(self.config.area),
                batch_norm_group=self.config.batch_norm_group,
                labelled_only=True,
            ),
        )


def _classification(forward: Forward):
    return classification_loss(forward.outputs.logits, forward.batch.label)
