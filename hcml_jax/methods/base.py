"""The contract between a paper's method and the training loop: stages, losses, features."""

import dataclasses
import itertools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

from hcml_jax.config import ConfigError, nearest
from hcml_jax.models import Normalisation

Variables = Mapping[str, Any]  # {"params": ..., "batch_stats": ...}
Batch = Mapping[str, jax.Array]  # see docs/architecture.md
Path = tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Schedule:
    """How long a stage lasts and how it is optimised.

    Attributes:
      epochs, steps: its length; exactly one of the two is given.
      warmup: of linear warm-up, in the unit of the length.
      decay: how the rate falls after it: "cosine", to zero, or "steps", to a tenth at each milestone.
      milestones: when, from the stage's start, in the unit of the length; for decay "steps" alone.
      optimizer: "sgd" (with momentum) or "adamw" (decoupled weight decay).
      learning_rate: peak rate for `per_clips` clips a step, scaled linearly with the batch; `per_clips` 0: as it is.
      weight_decay: on kernels only, not on biases nor batch normalisation.
      clip_norm: global norm to which gradients are clipped; 0: not clipped.
      micro_batches: in how many parts, one after another, the gradient of a batch is taken; needs a loss that is a mean
        over clips, and batch normalisation in groups.
      patience: the stage ends early once its validation loss (its logged training loss, where there is no validation
        split) has not improved by `min_improvement` (relative) for so many records in a row; 0: never.
    """

    epochs: float = 0.0
    steps: int = 0
    warmup: float = 0.0
    decay: str = "cosine"
    milestones: tuple[float, ...] = ()
    optimizer: str = "sgd"
    learning_rate: float = 0.0025
    per_clips: int = 8
    momentum: float = 0.9
    weight_decay: float = 1e-4
    clip_norm: float = 0.0
    micro_batches: int = 1
    patience: int = 0
    min_improvement: float = 0.01

    def __post_init__(self):
        if (self.epochs > 0) == (self.steps > 0) or min(self.epochs, self.steps) < 0:
            raise ConfigError(
                f"a schedule lasts `epochs` or `steps`, one of the two above 0; found epochs="
                f"{self.epochs}, steps={self.steps}"
            )
        for name, known in (("optimizer", ("sgd", "adamw")), ("decay", ("cosine", "steps"))):
            if (value := getattr(self, name)) not in known:
                raise ConfigError(f"no {name} is called {value!r}. {nearest(value, known)}")
        if self.learning_rate <= 0:
            raise ConfigError(f"learning_rate must be above 0, not {self.learning_rate}")
        for name in ("per_clips", "momentum", "weight_decay", "clip_norm", "patience"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} must be 0 or more, not {getattr(self, name)}")
        if self.micro_batches < 1:
            raise ConfigError(f"micro_batches must be 1 or more, not {self.micro_batches}")
        if not 0 <= self.warmup < (self.epochs or self.steps):
            raise ConfigError(f"warmup must be shorter than the stage, not {self.warmup}")
        if (self.decay == "steps") != bool(self.milestones):
            raise ConfigError(
                f"decay 'steps' needs milestones, and no other takes any; found decay={self.decay!r}, milestones="
                f"{self.milestones}"
            )
        times = (self.warmup, *self.milestones, self.epochs or self.steps)
        if any(later <= earlier for earlier, later in itertools.pairwise(times)):
            raise ConfigError(
                f"milestones must rise, after the warm-up and before the stage's end, not {self.milestones}"
            )

    def num_steps(self, clips: int, batch_size: int) -> int:
        """The stage's steps over a training set of `clips` clips; at least one."""
        return self.steps or max(1, round(self.epochs * clips / batch_size))

    def warmup_steps(self, clips: int, batch_size: int) -> int:
        """Its steps of warm-up."""
        warmup = int(self.warmup if self.steps else self.warmup * clips / batch_size)
        return min(warmup, self.num_steps(clips, batch_size) - 1)

    def milestone_steps(self, clips: int, batch_size: int) -> list[int]:
        """Its steps from which on the rate is a tenth of that before."""
        return [round(m if self.steps else m * clips / batch_size) for m in self.milestones]


@dataclasses.dataclass(frozen=True)
class Stage:
    """One phase of training.

    Attributes:
      name: unique within the method.
      schedule: its length and optimisation.
      trainable: path of a parameter (or of a module) -> whether it trains. The one source of the optimizer's mask, of
        which parameters are differentiated, and of which batch-norm statistics move.
      losses: name of a term -> its weight; other terms are not computed.
      batch_norm_group: clips over which batch statistics are taken; 0: the global batch.
      labelled_only: whether it trains on labelled clips only.
      over_batch: the terms that are no means over clips, such as those that compare clips.
    """

    name: str
    schedule: Schedule
    trainable: Callable[[Path], bool]
    losses: Mapping[str, float]
    batch_norm_group: int = 0
    labelled_only: bool = False
    over_batch: tuple[str, ...] = ()


class Outputs(NamedTuple):
    """What a loss gives beside its value: scalars to report, and the new state of mutable collections."""

    metrics: dict[str, jax.Array]
    state: Variables


class Method(Protocol):
    """A paper's method: a frozen dataclass that owns no arrays."""

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The phases of training, in order."""

    def init(self, key: jax.Array, batch: Batch) -> Variables:
        """Fresh variables."""

    def loss(
        self, variables: Variables, batch: Batch, key: jax.Array, stage: Stage
    ) -> tuple[jax.Array, Outputs]:
        """The stage's loss on a global batch: pure and jittable."""

    def features(self, variables: Variables, clips: jax.Array) -> dict[str, jax.Array]:
        """What evaluations read of clips `[B, T, H, W, 3]`: name -> `[B, C]`, "backbone" among them."""

    @property
    def normalisation(self) -> Normalisation:
        """By which mean and deviation of red, green and blue clips are normalised."""

    def frames_of_levels(self, frames: int) -> Mapping[str, np.ndarray]:
        """Level name -> which of a clip's `frames` frames its motion features stand at; may be empty."""

    def logits(self, variables: Variables, clips: jax.Array) -> jax.Array:
        """Class scores `[B, classes]`; called only where the data have labels."""

    def motion(self, variables: Variables, clips: jax.Array) -> dict[str, jax.Array]:
        """The levels' motion features, not pooled: level name -> `[B, T', H', W', C]`; may be empty."""


def check_dtype(dtype: str) -> None:
    """Raises ConfigError unless `dtype` is one that modules compute in."""
    if dtype not in ("float32", "bfloat16"):
        raise ConfigError(f"dtype must be 'float32' or 'bfloat16', not {dtype!r}")


def dropout_key(key: jax.Array) -> dict[str, jax.Array]:
    """What a network's `apply` draws its dropout from in a step of this key; most networks have none."""
    return {"dropout": jax.random.fold_in(key, 2)}  # splits in two take 0 and 1


def under(path: Path, *prefixes: str) -> bool:
    """Whether `path` lies at or below one of the slash-separated `prefixes`."""
    return any(path[: len(parts)] == parts for parts in (tuple(p.split("/")) for p in prefixes))


def everything(path: Path) -> bool:
    """The predicate of stages that train the whole network."""
    del path
    return True
