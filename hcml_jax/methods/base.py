"""The interface between a paper's method and the rest of the library: stages, losses, a network's outputs."""

import dataclasses
import itertools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from hcml_jax import augment
from hcml_jax.augment import PhotometricConfig
from hcml_jax.batch import Batch, Reads
from hcml_jax.config import ConfigError, nearest
from hcml_jax.models import Normalisation
from hcml_jax.rng import stream

Variables = Mapping[str, Any]  # collection -> tree of arrays
Path = tuple[str, ...]

# Learnt collections: `init_from` loads them and an export keeps them. All others, such as moving averages and queues,
# only serve training: `Method.derive` makes them from these, or they are initialised afresh.
LEARNT = ("params", "batch_stats")

# The collection of state from earlier batches: it is split over the devices even if nothing else is.
QUEUE = "queue"


@dataclasses.dataclass(frozen=True)
class Schedule:
    """How long a stage lasts and how it is optimised.

    Attributes:
      epochs, steps: its length; exactly one of the two is given.
      warmup: of linear warm-up, in the unit of the length.
      decay: how the rate falls after it: "cosine", to zero, or "steps", to a tenth at each milestone.
      milestones: their times, from the stage's start, in the unit of the length; only for decay "steps".
      optimizer: "sgd" (with momentum) or "adamw" (decoupled weight decay).
      learning_rate: peak rate for `per_clips` clips a step, scaled linearly with the batch; `per_clips` 0: as it is.
      weight_decay: on kernels only, not on biases nor batch normalisation.
      clip_norm: global norm to which gradients are clipped; 0: not clipped.
      micro_batches: number of parts over which a batch's gradient is accumulated; needs a loss that is a mean over
        clips, and batch normalisation in groups.
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
class Term:
    """One summand of a stage's loss.

    Attributes:
      compute: function that the method's `loss` calls on its network's outputs -> (value, scalars to report).
      weight: of the value in the sum.
      over_batch: whether its value, or a collection that it makes, is not a mean over clips: then a batch cannot be
        split into parts.
      classifies: whether it trains the scores of `Encoded.logits`.
      floors: reported scalar -> the least at which the term's value is still meaningful; a record below it causes a
        warning and does not count as progress.
      chances: reported scalar -> the reported scalar with its chance level; a stage that ends no better is reported.
    """

    compute: Callable[..., tuple[jax.Array, dict[str, jax.Array]]]
    weight: float = 1.0
    over_batch: bool = False
    classifies: bool = False
    floors: Mapping[str, float] = dataclasses.field(default_factory=dict)
    chances: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Stage:
    """One phase of training.

    Attributes:
      name: unique within the method.
      schedule: its length and optimisation.
      trainable: path of a parameter (or of a module) -> whether it trains. The one source of the optimizer's mask, of
        which parameters are differentiated, and of which batch-norm statistics move.
      terms: name -> summand of the loss; other terms are not computed.
      reads: what its examples hold.
      batch_norm_group: clips over which batch statistics are taken; 0: the global batch.
      labelled_only: whether it trains on labelled clips only.
    """

    name: str
    schedule: Schedule
    trainable: Callable[[Path], bool]
    terms: Mapping[str, Term]
    reads: Reads = Reads()
    batch_norm_group: int = 0
    labelled_only: bool = False

    @property
    def classifies(self) -> bool:
        """Whether it teaches class scores."""
        return any(term.classifies for term in self.terms.values())

    @property
    def floors(self) -> dict[str, float]:
        """Metric -> its floor (see `Term`)."""
        return {f"{name}/{scalar}": floor for name, term in self.terms.items() for scalar, floor in term.floors.items()}

    @property
    def chances(self) -> dict[str, str]:
        """Metric -> the metric of its chance (see `Term`)."""
        return {
            f"{name}/{one}": f"{name}/{two}" for name, term in self.terms.items() for one, two in term.chances.items()
        }


class Outputs(NamedTuple):
    """What a loss gives beside its value: scalars to report, and the collections that change; others stay."""

    metrics: dict[str, jax.Array]
    collections: Variables


class Encoded(NamedTuple):
    """Outputs of one forward pass on clips; under jit, those that a caller does not use cost nothing.

    Attributes:
      features: name -> `[B, C]`, "backbone" among them.
      maps: name -> `[B, T', H', W', C]`, float32: motion features that are not pooled, each of a frame and the next
        one, and last of the last frame and itself, or one unseen; may be empty.
      flow: name -> `[B, T' - 1, H, W, 2]`, (u right, v down) in pixels of the clip, between the frames of the map of
        that name; empty where the network has learnt none.
      last: `[B, T', H', W', C]`, the backbone's last features, of which its embedding is made; None: there are none.
      logits: class scores `[B, classes]`, or `[B, R, classes]` of a method's R `classifiers`; None without classes.
    """

    features: dict[str, jax.Array]
    maps: dict[str, jax.Array]
    flow: dict[str, jax.Array]
    logits: jax.Array | None = None
    last: jax.Array | None = None


class Highlight(NamedTuple):
    """Strengths `[B, T', H', W']`, 0 or more, to overlay on the frames of clip number `clip` of each video."""

    clip: int
    strength: jax.Array


class Method(Protocol):
    """A paper's method: a frozen dataclass of `config` (a dataclass of its own) and `num_classes`; owns no arrays.

    Attributes:
      num_classes: of the data's labels; 0 where there are none.
      stages: the phases of training, in order.
      normalisation: mean and deviation of red, green and blue by which it normalises clips.
      architecture: the backbone's name, under which its weights are exported.
      deployed: the top-level modules that an export keeps; those called "backbone" and "classifier" go by published
        names in its file for PyTorch.
      flips: whether training mirrors clips, which changes labels such as "left".
      attended: path of the module that outputs the last maps `[B, T', H', W', C]`, from which class scores, if any, are
        made; "": none.
      classifiers: names of classifiers trained side by side, of which an evaluation chooses one; (): there is one.
    """

    num_classes: int
    stages: tuple[Stage, ...]
    normalisation: Normalisation
    architecture: str
    deployed: tuple[str, ...]
    flips: bool
    attended: str = ""
    classifiers: tuple[str, ...] = ()

    @property
    def classifies(self) -> bool:
        """Whether any stage teaches class scores."""
        return any(stage.classifies for stage in self.stages)

    def init(self, key: jax.Array, batch: Batch) -> Variables:
        """Fresh variables; only the shapes of the batch matter."""

    def derive(self, variables: Variables) -> Variables:
        """Add or recompute the variables that are derived from learnt ones, such as key encoders.

        Called after `init`, and again on variables that were loaded.
        """
        return variables

    def loss(
        self, variables: Variables, batch: Batch, key: jax.Array, stage: Stage, *, train: bool
    ) -> tuple[jax.Array, Outputs]:
        """The stage's loss on a global batch: pure and jittable.

        With `train`, clips are augmented, and statistics, moving averages and queues are updated. Without it, none is,
        and the key, with which a loss may still draw what it compares, is always the same.
        """

    def augmented(self, clips: jax.Array, key: jax.Array) -> jax.Array:
        """Clips `[B, T, H, W, 3]` in `[0, 1]` as training changes them, of the same shape and range."""
        return clips

    def encode(self, variables: Variables, clips: jax.Array) -> Encoded:
        """Encode clips `[B, T, H, W, 3]`, uint8 or float `[0, 1]`; it also works on exported variables."""

    def next_frames(self, variables: Variables, clips: jax.Array) -> jax.Array | None:
        """The frame that follows each frame of clips `[B, T, H, W, 3]`, float32, of the same shape, in `[0, 1]` or
        little beyond; None: the method makes none."""
        return None

    def similarities(self, variables: Variables, batch: Batch) -> dict[str, jax.Array]:
        """Name -> cosines `[B, N, N]` of the features that the method compares, for the report: pairs that should be
        most similar lie on the diagonal. The batch is read as the stage with several clips does; exports lack some
        variables."""
        return {}

    def highlights(self, variables: Variables, batch: Batch) -> dict[str, Highlight]:
        """Name -> what the report lays over the frames of that batch."""
        return {}

    def frames_of(self, frames: int) -> Mapping[str, np.ndarray]:
        """Map name -> which of a clip's `frames` frames its time steps stand for."""
        return {}


class BackboneMethod(Method):
    """A method that has a backbone at the top of its network: its `config` has the fields `backbone` and `flip`."""

    @property
    def normalisation(self) -> Normalisation:
        """See `Method`."""
        return self.config.backbone.mean, self.config.backbone.std

    @property
    def architecture(self) -> str:
        """See `Method`."""
        return self.config.backbone.name

    @property
    def flips(self) -> bool:
        """See `Method`."""
        return self.config.flip

    @property
    def photometric(self) -> PhotometricConfig | None:
        """How the colours of training clips change; None: they do not."""
        return None

    def augmented(self, clips: jax.Array, key: jax.Array) -> jax.Array:
        """See `Method`: mirrored at random, with other colours."""
        if self.flips:
            clips = augment.flip(clips, augment.draw_flip(stream(key, "flip"), len(clips)))
        if self.photometric:
            drawn = augment.draw_photometric(stream(key, "photometric"), len(clips), self.photometric)
            clips = augment.change_photometry(clips, drawn, self.photometric)
        return clips

    def normalise(self, clips: jax.Array) -> jax.Array:
        """Clips, uint8 or float `[0, 1]`, as the backbone takes them."""
        return augment.normalise(augment.to_float(clips), *self.normalisation)


def weigh(terms: Mapping[str, Term], *given: Any) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The weighted sum of terms, and its metrics: "loss", each term's value by name, and its reports under that."""
    total, metrics = jnp.zeros(()), {}
    for name, term in terms.items():
        value, report = term.compute(*given)
        total += term.weight * value
        metrics |= {name: value} | {f"{name}/{key}": scalar for key, scalar in report.items()}
    return total, {"loss": total, **metrics}


def masked_mean(values: jax.Array, kept: jax.Array) -> jax.Array:
    """The mean of the values that are kept; 0 if there are none."""
    return jnp.sum(values, where=kept) / jnp.maximum(kept.sum(), 1).astype(jnp.float32)


def check_dtype(dtype: str) -> None:
    """Raises ConfigError unless `dtype` is one that modules compute in."""
    if dtype not in ("float32", "bfloat16"):
        raise ConfigError(f"dtype must be 'float32' or 'bfloat16', not {dtype!r}")


def under(path: Path, *prefixes: str) -> bool:
    """Whether `path` lies at or below one of the slash-separated `prefixes`."""
    return any(path[: len(parts)] == parts for parts in (tuple(p.split("/")) for p in prefixes))


def everything(path: Path) -> bool:
    """The predicate of stages that train the whole network."""
    del path
    return True
