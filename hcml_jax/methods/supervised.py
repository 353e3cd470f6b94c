"""Plain action recognition: a backbone, with or without motion blocks, and a classifier (HCML Table 2)."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from hcml_jax import augment
from hcml_jax.config import ConfigError, nearest
from hcml_jax.methods.base import (
    Batch,
    Outputs,
    Schedule,
    Stage,
    Variables,
    check_dtype,
    dropout_key,
    everything,
)
from hcml_jax.methods.classification import classification_loss
from hcml_jax.methods.recogniser import Recogniser
from hcml_jax.models import BackboneConfig, Classifier, TrainMode
from hcml_jax.models.layers import Train


@dataclasses.dataclass(frozen=True)
class SupervisedConfig:
    """Fields of the method "supervised".

    Attributes:
      stages: {"supervised": its schedule}.
      backbone: which backbone.
      motion_blocks: the stages after which a motion block stands.
      flip: whether clips are mirrored at random (a flip changes labels such as "left").
      batch_norm_group: clips over which batch statistics are taken; 0: the global batch.
      dtype: what convolutions compute in, "float32" or "bfloat16".
    """

    stages: dict[str, Schedule]
    backbone: BackboneConfig = BackboneConfig()
    motion_blocks: tuple[str, ...] = ()
    flip: bool = True
    batch_norm_group: int = 0
    dtype: str = "float32"

    def __post_init__(self):
        check_dtype(self.dtype)
        for stage in self.motion_blocks:
            stages = self.backbone.stages
            if stage not in stages:
                raise ConfigError(
                    f"motion_blocks: no stage is called {stage!r}. {nearest(stage, stages)}"
                )
        if set(self.stages) != {"supervised"}:
            raise ConfigError(f"stages must be exactly 'supervised', not {sorted(self.stages)}")


class SupervisedNetwork(nn.Module):
    """A backbone and a linear classifier of its embedding."""

    config: SupervisedConfig
    classes: int

    def setup(self):
        config = self.config
        self.backbone = config.backbone.build(
            motion_blocks=config.motion_blocks, dtype=jnp.dtype(config.dtype)
        )
        self.classifier = Classifier(self.classes)

    def encode(self, clip: jax.Array, train: Train) -> dict[str, jax.Array]:
        """Maps normalised clips `[B, T, H, W, 3]` to "embedding", "logits" and the backbone's features."""
        embedding, features = self.backbone(clip, train)
        return {"embedding": embedding, "logits": self.classifier(embedding), **features}


@dataclasses.dataclass(frozen=True)
class Supervised(Recogniser):
    """The baseline: one stage that trains everything on labelled clips."""

    config: SupervisedConfig
    num_classes: int

    def __post_init__(self):
        if self.num_classes < 2:
            raise ConfigError(
                "the method 'supervised' needs a table with labels of 2 classes or more"
            )

    @functools.cached_property
    def network(self) -> SupervisedNetwork:
        """The Linen module whose variables this method works on."""
        return SupervisedNetwork(self.config, self.num_classes)

    @property
    def stages(self) -> tuple[Stage, ...]:
        """Its only stage."""
        return (
            Stage(
                name="supervised",
                schedule=self.config.stages["supervised"],
                trainable=everything,
                losses={"classification": 1.0},
                batch_norm_group=self.config.batch_norm_group,
                labelled_only=True,
            ),
        )

    def init(self, key: jax.Array, batch: Batch) -> Variables:
        """Fresh variables; only the shape of `batch["clip"]` matters."""
        return self.network.init(key, augment.to_float(batch["clip"]), False, method="encode")

    def loss(
        self, variables: Variables, batch: Batch, key: jax.Array, stage: Stage
    ) -> tuple[jax.Array, Outputs]:
        """Cross-entropy of the labelled clips."""
        clip = augment.to_float(batch["clip"])
        clip = augment.random_flip(key, clip) if self.config.flip else clip
        train = TrainMode(stage.trainable, stage.batch_norm_group)
        outputs, state = self.network.apply(
            variables,
            self.normalise(clip),
            train,
            mutable=["batch_stats"],
            method="encode",
            rngs=dropout_key(key),
        )
        loss, metrics = classification_loss(outputs["logits"], batch["label"])
        return loss, Outputs({"loss": loss, **metrics}, state)
