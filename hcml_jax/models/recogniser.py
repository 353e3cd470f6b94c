"""A backbone and a classifier; with a motion hierarchy, the side branch that teaches its levels."""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from hcml_jax.contrastive import gather_positions, sample_positions
from hcml_jax.models.backbone import Backbone
from hcml_jax.models.heads import Classifier, FlowHead, Predictors, SideBySide
from hcml_jax.models.layers import Train, at_least_float32
from hcml_jax.ops import avg_pool_to, resize_area, unit_vectors


class Recognised(NamedTuple):
    """What a recogniser makes of clips: the backbone's embedding `[B, C]` and features, and class scores or None."""

    embedding: jax.Array
    features: dict[str, jax.Array]
    logits: jax.Array | None = None


class Future(NamedTuple):
    """Predictions of a level for the level below, at some positions of each clip.

    Attributes:
      predictions: `[K, B, T, N, D]`; entry `[k, :, t]` is for frame t + k + 1.
      blind: the same, made from the mean of the level's motion features instead of these.
      targets: `[B, T, N, D]`.
      predictable: bool `[T]`, which frames have targets.
    """

    predictions: jax.Array
    blind: jax.Array
    targets: jax.Array
    predictable: np.ndarray


class SideOutputs(NamedTuple):
    """Outputs of the side branch for motion features, by level; each level is in one of the dicts.

    Attributes:
      flow: `[B, T - 1, H, W, 2]`, in cells of the level's grid.
      futures: what is predicted of the level below.
      actions: class scores `[B, classes]`.
    """

    flow: dict[str, jax.Array]
    futures: dict[str, Future]
    actions: dict[str, jax.Array]


def paired(motion: jax.Array) -> jax.Array:
    """Motion features `[B, T, H, W, C]` without the last frame, which is paired with itself, where there are others."""
    return motion[:, :-1] if motion.shape[1] > 1 else motion


def pooled(motion: jax.Array) -> jax.Array:
    """Motion features `[B, T, H, W, C]` as one vector a clip: the mean over `paired`; float32 `[B, C]`."""
    return paired(at_least_float32(motion)).mean((1, 2, 3))


class Recogniser(nn.Module):
    """A backbone and a linear classifier of its embedding.

    Attributes:
      backbone: the network.
      classes: number of classes; 0: there is no classifier.
      dropout: dropout rate of the embedding before the classifier, in training where a "dropout" key is given.
    """

    backbone: Backbone
    classes: int
    dropout: float = 0.0

    def setup(self):
        if self.classes:
            self.classifier = Classifier(self.classes)
            self.drop = nn.Dropout(self.dropout)

    def __call__(self, clip: jax.Array, train: Train) -> Recognised:
        """Recognises clips `[B, T, H, W, 3]`, normalised; `train` says how batch normalisation behaves."""
        embedding, features = self.backbone(clip, train)
        if not self.classes:
            return Recognised(embedding, features)
        seen = self.drop(embedding, deterministic=not (train and self.has_rng("dropout")))
        return Recognised(embedding, features, self.classifier(seen))


class LinearProbe(nn.Module):
    """A backbone and several linear classifiers, side by side, of one of its features.

    Attributes:
      backbone: the network.
      classes: of each classifier.
      count: R classifiers.
      feature: "backbone", the embedding; or the name of a motion feature, which is averaged over its clip.
      normalise: whether the feature is brought to length 1.
    """

    backbone: Backbone
    classes: int
    count: int
    feature: str = "backbone"
    normalise: bool = False

    def setup(self):
        self.classifiers = SideBySide(self.classes, self.count)

    def __call__(self, clip: jax.Array, train: Train) -> Recognised:
        """As a `Recogniser`, with class scores `[B, R, classes]`."""
        return self.with_penalty(clip, train)[0]

    def with_penalty(self, clip: jax.Array, train: Train) -> tuple[Recognised, jax.Array]:
        """The same, and the squared norm of each classifier's kernel `[R]`."""
        embedding, features = self.backbone(clip, train)
        chosen = embedding if self.feature == "backbone" else pooled(features[self.feature])
        chosen = unit_vectors(chosen) if self.normalise else chosen
        logits, penalty = self.classifiers(chosen)
        return Recognised(embedding, features, logits), penalty


class MotionHierarchy(Recogniser):
    """A recogniser whose backbone has a motion block for each level, and the side branch that teaches them (HCML,
    Figure 2)."""

    heads: "SideBranch" = None

    def with_side_branch(
        self, clip: jax.Array, train: Train, only_flow: bool = False
    ) -> tuple[Recognised, SideOutputs]:
        """As `__call__`, and the side branch's outputs for the motion features; `only_flow` needs no random numbers."""
        recognised = self(clip, train)
        return recognised, self.heads(recognised.features, only_flow)


class SideBranch(nn.Module):
    """Flow heads, predictors and classifiers, each under its level's name.

    Attributes:
      classes: number of classes.
      supervisions: of each level, lowest first: "reconstruction", "contrastive" or "action".
      flow_channels: of the flow heads.
      prediction_steps: how many frames ahead are predicted; at most as many as the level has.
      positions: number of positions drawn per clip, from the rng stream "positions"; at most the level's grid.
      motion_share: share of the sampling probability that is proportional to level 0's flow at a position; the rest is
        uniform.
      self_paired: whether features of the last frame, which is paired with itself, are predicted and pooled.
      dtype: what heads compute in.
    """

    classes: int
    supervisions: tuple[str, ...]
    flow_channels: tuple[int, ...]
    prediction_steps: int
    positions: int
    motion_share: float = 0.0
    self_paired: bool = False
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, features: dict[str, jax.Array], only_flow: bool) -> SideOutputs:
        """Maps a backbone's features to what teaches its levels."""
        outputs = SideOutputs({}, {}, {})
        for level, supervision in enumerate(self.supervisions):
            name, motion = f"level{level}", features[f"level{level}"]
            if supervision == "reconstruction":
                head = FlowHead(self.flow_channels, self.dtype, name=name)
                # The last frame is paired with itself: its flow is never used.
                outputs.flow[name] = head(motion[:, :-1])
            elif only_flow:
                continue
            elif supervision == "action":
                seen = at_least_float32(motion).mean((1, 2, 3)) if self.self_paired else pooled(motion)
                outputs.actions[name] = Classifier(self.classes, name=name)(seen)
            else:
                lower = features[f"level{level - 1}"]
                outputs.futures[name] = self._predict(name, motion, lower, outputs.flow.get("level0"))
        return outputs

    def _predict(self, name: str, motion: jax.Array, lower: jax.Array, flow: jax.Array | None) -> Future:
        batch, time, height, width, _ = motion.shape
        lower, predictable = _targets(lower, (time, height, width), self.self_paired)
        last = int(np.flatnonzero(predictable).max(initial=0))  # the last frame that can be predicted
        if not last:
            raise ValueError(
                f"{name} has {time} frame{'s' * (time > 1)}, of which none but the first is paired with a later one: "
                "predicting its future needs more; use longer clips or smaller temporal strides"
            )
        weights = jnp.full((batch, height, width), 1 / (height * width))
        if self.motion_share:
            moving = resize_area(jnp.linalg.norm(flow, axis=-1).mean(1)[..., None], height, width)[..., 0]
            total = moving.sum((1, 2), keepdims=True)
            weights = (1 - self.motion_share) * weights + self.motion_share * moving / jnp.maximum(total, 1e-6)
        count = min(self.positions, height * width)
        positions = sample_positions(self.make_rng("positions"), weights, count)
        motion, lower = (gather_positions(x, positions) for x in (motion, lower))
        head = Predictors(min(self.prediction_steps, last), self.dtype, name=name)
        mean = jnp.broadcast_to(at_least_float32(motion).mean((0, 1, 2)), motion.shape).astype(motion.dtype)
        return Future(head(motion, lower), head(mean, lower), lower.astype(jnp.float32), predictable)


def _targets(lower: jax.Array, grid: tuple[int, int, int], self_paired: bool) -> tuple[jax.Array, np.ndarray]:
    """Motion features averaged over the cells of a grid (time, height, width), and which of its times have any.

    Without `self_paired` the last frame is left out.
    """
    frames, time = lower.shape[1], grid[0]
    counts = np.arange(frames) < (frames if self_paired else frames - 1)
    share = np.repeat(counts.astype(np.float32), time).reshape(time, frames).mean(1)  # of each cell
    each = (-1, 1, 1, 1)
    pooled = avg_pool_to(lower * counts.reshape(each).astype(lower.dtype), *grid)
    return pooled / np.maximum(share, 1e-6).reshape(each).astype(lower.dtype), share > 0
