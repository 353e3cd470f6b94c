"""Base class of methods whose network is a `Recogniser`: the loss of a batch, and outputs for evaluation."""

import functools
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from hcml_jax import augment
from hcml_jax.batch import Batch, Reads
from hcml_jax.config import ConfigError
from hcml_jax.methods.base import BackboneMethod, Encoded, Outputs, Stage, Variables, weigh
from hcml_jax.models import Backbone, Recognised, TrainMode, pooled
from hcml_jax.models.layers import at_least_float32
from hcml_jax.rng import streams


class Forward(NamedTuple):
    """Inputs of a loss term.

    Attributes:
      clip: float32 `[B, T, H, W, 3]` in `[0, 1]`, augmented, not normalised.
      batch: the batch it comes from.
      outputs: of the network's `forward` for it.
    """

    clip: jax.Array
    batch: Batch
    outputs: Any


class Recognition(BackboneMethod):
    """A method on the first clip of each video; its `config` has the fields `backbone`, `motion_blocks` and `flip`."""

    deployed = ("backbone", "classifier")
    forward: ClassVar[str] = "__call__"  # of the network, in a loss

    @functools.cached_property
    def backbone(self) -> Backbone:
        """The backbone's module, to read what it is like."""
        return self.config.backbone.build(motion_blocks=self.config.motion_blocks)

    @property
    def levels(self) -> list[str]:
        """Names of the motion features, lowest first."""
        return [f"level{number}" for number in range(len(self.config.motion_blocks))]

    @property
    def attended(self) -> str:
        """See `Method`."""
        return f"backbone/{self.backbone.stages[-1]}"

    def init(self, key: jax.Array, batch: Batch) -> Variables:
        """See `Method`."""
        clip, rngs = augment.to_float(batch.clip[:, 0]), streams(key, "params", "positions")
        return self.network.init(rngs, clip, False, method=self.forward)

    def loss(
        self, variables: Variables, batch: Batch, key: jax.Array, stage: Stage, *, train: bool
    ) -> tuple[jax.Array, Outputs]:
        """The weighted sum of the stage's terms."""
        clip = augment.to_float(batch.clip[:, 0])
        if train:
            clip = self.augmented(clip, key)
        outputs, collections = self.network.apply(
            variables,
            self.normalise(clip),
            TrainMode(stage.trainable, stage.batch_norm_group) if train else False,
            mutable=["batch_stats"],
            method=self.forward,
            rngs=streams(key, "dropout", "positions"),
        )
        loss, metrics = weigh(stage.terms, Forward(clip, batch, outputs))
        return loss, Outputs(metrics, collections)

    def encode(self, variables: Variables, clips: jax.Array) -> Encoded:
        """See `Method`."""
        return self.encoded(self.network.apply(variables, self.normalise(clips), False))

    def encoded(self, recognised: Recognised) -> Encoded:
        """Motion features as maps; pooled, and the embedding as "backbone", as features."""
        maps = {level: at_least_float32(recognised.features[level]) for level in self.levels}
        features = {level: pooled(recognised.features[level]) for level in self.levels}
        features |= {"backbone": recognised.embedding}
        last = at_least_float32(recognised.features[self.backbone.stages[-1]])
        return Encoded(features, maps, flow={}, logits=recognised.logits, last=last)

    def frames_of(self, frames: int) -> dict[str, np.ndarray]:
        """See `Method`."""
        clip = np.arange(frames)[None]
        return {level: self.backbone.frames_of(level, clip)[0] for level in self.levels}


def random_crop(area: tuple[float, float] | None) -> Reads:
    """`Reads` of a stage whose training clips show a share of the frame in `area`, (least, most); None: see `Reads`.

    Raises:
      ConfigError: the share is out of its range.
    """
    try:
        return Reads(area=area)
    except ValueError as error:
        raise ConfigError(f"area: {error}") from error


def classification_loss(logits: jax.Array, labels: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Mean cross-entropy over the labelled clips.

    Args:
      logits: `[B, classes]`.
      labels: `[B]` int; negative where unlabelled.

    Returns:
      The loss (0 if nothing is labelled) and {"top1": share of labelled clips recognised}.
    """
    labelled = (labels >= 0).astype(jnp.float32)
    count = jnp.maximum(labelled.sum(), 1.0)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.maximum(labels, 0))
    correct = (jnp.argmax(logits, -1).astype(labels.dtype) == labels).astype(jnp.float32)
    return (losses * labelled).sum() / count, {"top1": (correct * labelled).sum() / count}
