"""Linear training: classifiers on the features of a frozen network, on augmented clips (MSCL Table 6, FIMA Table 4)."""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from hcml_jax.augment import PhotometricConfig
from hcml_jax.config import ConfigError, nearest
from hcml_jax.methods.base import Schedule, Stage, Term, check_dtype, under
from hcml_jax.methods.recognition import Forward, Recognition, classification_loss, random_crop
from hcml_jax.models import BackboneConfig, LinearProbe


@dataclasses.dataclass(frozen=True)
class LinearConfig:
    """Fields of the method "linear".

    Attributes:
      stages: {"linear": its schedule}, of SGD.
      backbone: which backbone, as in the run that it is taken from (`init_from`, prefixes ("backbone",)).
      motion_blocks: the stages after which a motion block stands, as there.
      feature: "backbone", or the name of a level, such as "level1".
      normalise: whether features are brought to length 1 (CoCLR, FIMA).
      rates: multiples of the schedule's learning rate; one classifier each is trained, side by side, as if alone.
      flip: whether clips are mirrored at random (a flip changes labels such as "left").
      area: (least, most) share of the frame that a training clip shows: see `Reads`.
      photometric: how the colours of training clips change; None: they do not.
      dtype: what convolutions compute in, "float32" or "bfloat16".
    """

    stages: dict[str, Schedule]
    backbone: BackboneConfig = BackboneConfig()
    motion_blocks: tuple[str, ...] = ()
    feature: str = "backbone"
    normalise: bool = False
    rates: tuple[float, ...] = (1.0,)
    flip: bool = False
    area: tuple[float, float] | None = None
    photometric: PhotometricConfig | None = None
    dtype: str = "float32"

    def __post_init__(self):
        check_dtype(self.dtype)
        random_crop(self.area)
        if set(self.stages) != {"linear"}:
            raise ConfigError(f"stages must be exactly 'linear', not {sorted(self.stages)}")
        for stage in self.motion_blocks:
            if stage not in self.backbone.stages:
                raise ConfigError(
                    f"motion_blocks: no stage is called {stage!r}. {nearest(stage, self.backbone.stages)}"
                )
        known = ["backbone", *(f"level{number}" for number in range(len(self.motion_blocks)))]
        if self.feature not in known:
            raise ConfigError(f"no feature is called {self.feature!r}. {nearest(self.feature, known)}")
        if not self.rates or min(self.rates) <= 0 or len(set(self.rates)) < len(self.rates):
            raise ConfigError(f"rates must be one or more, each above 0 and once, not {self.rates}")
        schedule = self.stages["linear"]
        if schedule.optimizer != "sgd" or schedule.clip_norm:
            raise ConfigError("stages.linear: classifiers side by side need optimizer 'sgd' and clip_norm 0")


@dataclasses.dataclass(frozen=True)
class Linear(Recognition):
    """One stage, in which only classifiers learn; batch normalisation of the network stays as it was learnt."""

    config: LinearConfig
    num_classes: int
    deployed = ("backbone", "classifiers")
    photometric = property(lambda self: self.config.photometric)
    forward = "with_penalty"

    def __post_init__(self):
        if self.num_classes < 2:
            raise ConfigError("the method 'linear' needs a table with labels of 2 classes or more")

    @property
    def classifiers(self) -> tuple[str, ...]:
        """See `Method`."""
        return tuple(f"rate {rate:g}" for rate in self.config.rates)

    @functools.cached_property
    def network(self) -> LinearProbe:
        """The Linen module whose variables this method works on."""
        config = self.config
        options = {"motion_blocks": config.motion_blocks, "dtype": jnp.dtype(config.dtype)}
        shape = {"classes": self.num_classes, "count": len(config.rates)}
        return LinearProbe(
            config.backbone.build(**options), **shape, feature=config.feature, normalise=config.normalise
        )

    @property
    def stages(self) -> tuple[Stage, ...]:
        """Its only stage."""
        schedule = self.config.stages["linear"]
        return (
            Stage(
                name="linear",
                # Weight decay is part of the loss, so that it also scales with each classifier's rate.
                schedule=dataclasses.replace(schedule, weight_decay=0.0),
                trainable=lambda path: under(path, "classifiers"),
                terms={"classification": Term(self._classification, classifies=True)},
                reads=random_crop(self.config.area),
                labelled_only=True,
            ),
        )

    def _classification(self, forward: Forward):
        recognised, penalty = forward.outputs
        decay = self.config.stages["linear"].weight_decay
        return side_by_side(recognised.logits, forward.batch.label, penalty, decay, self.config.rates)


def side_by_side(
    logits: jax.Array, labels: jax.Array, penalty: jax.Array, decay: float, rates: tuple[float, ...]
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """A loss whose gradient moves each classifier as if it were trained alone, at its own multiple of the rate.

    With momentum SGD a step is linear in the gradient, so that a loss times r is a learning rate times r.

    Args:
      logits: `[B, R, classes]`.
      labels: int `[B]`; negative where unlabelled.
      penalty: `[R]`, squared norms of the kernels.
      decay: weight decay.
      rates: R multiples of the learning rate.

    Returns:
      The sum of each one's mean cross-entropy and decay, times its rate; of each, loss and top-1.
    """
    of_each = jax.vmap(classification_loss, in_axes=(1, None))
    losses, report = of_each(logits, labels)
    hits = report["top1"]
    total = jnp.sum(jnp.array(rates, jnp.float32) * (losses + decay / 2 * penalty))
    report = {}
    for number, rate in enumerate(rates):
        report |= {f"rate_{rate:g}/loss": losses[number], f"rate_{rate:g}/top1": hits[number]}
    return total, report
