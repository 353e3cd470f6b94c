"""Hierarchical contrastive motion learning (Yang et al., HCML): a motion hierarchy learnt level by level.

Level 0 learns motion by reconstructing frames; each higher level by predicting the future motion features of the
level below, contrastively, with the lower levels frozen; then everything is trained jointly for recognition.
"""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp

from hcml_jax.config import ConfigError, nearest
from hcml_jax.contrastive import (
    InfoNCE,
    centre,
    choose_form,
    comparable,
    contrast_report,
    info_nce_and_hits,
    info_nce_in_time,
    pair_predictions,
    spread_report,
)
from hcml_jax.methods.base import Encoded, Schedule, Stage, Term, Variables, check_dtype, everything, masked_mean, under
from hcml_jax.methods.recognition import Forward, Recognition, classification_loss
from hcml_jax.models import BackboneConfig, MotionHierarchy, SideBranch, paired
from hcml_jax.ops import backward_warp, photometric_loss, resize_area, resize_flow, smoothness_loss

SUPERVISIONS = ("reconstruction", "contrastive", "action")
RIGHT_TIME = "right_time"  # the share of predictions that find their target among the times of its place
VALID = "valid"  # the share of the pixels where flow leads into the frame


@dataclasses.dataclass(frozen=True)
class HCMLConfig:
    """Fields of the method "hcml"; defaults are the paper's, or decided where it is silent.

    Attributes:
      stages: stage name -> schedule: "level0", "level1", ... (or "levels", all at once, when not `progressive`), and
        "joint" where there are labels.
      backbone: which backbone.
      levels: the supervision of each level from the lowest on, "reconstruction", "contrastive" or "action"; fewer
        than three make a shorter hierarchy (HCML Table 1, Figure 3).
      progressive: one level at a time, the lower ones frozen (HCML 3.1), or all at once.
      flow_channels: of the flow head's five convolutions.
      photometric_size: side in pixels at which frames are compared (frames shrink by area); 0: as they come.
      charbonnier_alpha, charbonnier_epsilon: of the penalty of both terms of reconstruction.
      smoothness_weight: zeta.
      normalise_by_valid: divide the photometric term by the valid pixels instead of all.
      prediction_steps: K, how many frames ahead are predicted; at most T - 1 of the level.
      positions: N, spatial positions drawn for each clip; at most those of the level's grid.
      motion_share: share of the sampling probability that is proportional to level 0's flow at a position (level 0 must
        then be learnt by reconstruction); 0: all positions alike.
      self_paired: whether the features of a clip's last frame, paired with itself, are predicted, and pooled for the
        supervision "action" (literally as in the paper).
      temperature: tau.
      temporal_weight: share, from 0 (eq. 3) to 1, of the contrastive loss that is over temporal negatives only.
      centre_targets: whether the batch's mean is subtracted from the targets.
      target_gradients: whether gradients also reach the predicted features, where the level below trains too.
      reconstruction_weight: lambda of the joint loss (HCML eq. 4).
      contrastive_weights: gamma^1 and gamma^2 of it.
      joint_batch_norm_group: clips over which joint training takes batch statistics; 0: the global batch.
      flip: whether clips are mirrored at random (a flip changes labels such as "left").
      dtype: what convolutions compute in, "float32" or "bfloat16".
    """

    stages: dict[str, Schedule]
    backbone: BackboneConfig = BackboneConfig()
    levels: tuple[str, ...] = ("reconstruction", "contrastive", "contrastive")
    progressive: bool = True
    flow_channels: tuple[int, ...] = (128, 128, 96, 64, 32)
    photometric_size: int = 0
    charbonnier_alpha: float = 0.45
    charbonnier_epsilon: float = 1e-3
    smoothness_weight: float = 0.02
    normalise_by_valid: bool = False
    prediction_steps: int = 3
    positions: int = 49
    motion_share: float = 0.0
    self_paired: bool = False
    temperature: float = 0.07
    temporal_weight: float = 0.0
    centre_targets: bool = False
    target_gradients: bool = False
    reconstruction_weight: float = 15.0
    contrastive_weights: tuple[float, float] = (0.25, 0.25)
    joint_batch_norm_group: int = 8
    flip: bool = False
    dtype: str = "float32"

    def __post_init__(self):
        check_dtype(self.dtype)
        for name, least in (
            ("positions", 1),
            ("prediction_steps", 1),
            ("photometric_size", 0),
            ("joint_batch_norm_group", 0),
        ):
            if getattr(self, name) < least:
                raise ConfigError(f"{name} must be {least} or more, not {getattr(self, name)}")
        if self.temperature <= 0:
            raise ConfigError(f"temperature must be above 0, not {self.temperature}")
        for name in ("motion_share", "temporal_weight"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} must be between 0 and 1, not {getattr(self, name)}")
        if len(self.flow_channels) != 5 or min(self.flow_channels) < 1:
            raise ConfigError(f"flow_channels must be 5 numbers, 1 or more, not {self.flow_channels}")
        if not 1 <= len(self.levels) <= 3:
            raise ConfigError(f"levels must name 1 to 3 supervisions, not {self.levels}")
        for supervision in self.levels:
            if supervision not in SUPERVISIONS:
                raise ConfigError(
                    f"levels: no supervision is called {supervision!r}. {nearest(supervision, SUPERVISIONS)}"
                )
        if self.levels[0] == "contrastive":
            raise ConfigError("levels: level 0 has no level below to predict; use 'reconstruction' or 'action'")
        if self.motion_share and "contrastive" in self.levels and self.levels[0] != "reconstruction":
            raise ConfigError("motion_share draws positions by level 0's flow: levels must begin with 'reconstruction'")
        needed = self.self_supervised_stages
        if set(self.stages) - {"joint"} != set(needed):
            raise ConfigError(f"stages must be {needed} and, to use labels, 'joint', not {sorted(self.stages)}")

    @property
    def self_supervised_stages(self) -> tuple[str, ...]:
        """Names of the stages before the joint one, in order."""
        if not self.progressive:
            return ("levels",)
        return tuple(f"level{level}" for level in range(len(self.levels)))

    @property
    def motion_blocks(self) -> tuple[str, ...]:
        """The backbone's stages with a motion block: level l stands after the l-th."""
        return self.backbone.bare.motion_stages[: len(self.levels)]

    def own_modules(self, level: int) -> tuple[str, ...]:
        """The backbone's modules that a level trains: those that compute its features, but not the lower levels'."""
        backbone, blocks = self.backbone.bare, self.motion_blocks
        below = backbone.modules_of(blocks[level - 1]) if level else ()
        return tuple(m for m in backbone.modules_of(blocks[level]) if m not in below)


@dataclasses.dataclass(frozen=True)
class HCML(Recognition):
    """The method; `num_classes` 0 leaves out the joint stage. Without that stage there is no classifier."""

    config: HCMLConfig
    num_classes: int = 0

    forward = "with_side_branch"

    def __post_init__(self):
        if "action" in self.config.levels and not self.num_classes:
            raise ConfigError("levels: the supervision 'action' needs a table with labels")

    @property
    def deployed(self) -> tuple[str, ...]:
        """See `Method`: also the classifier or, without one, the heads that give flow."""
        return ("backbone", "classifier" if self._learns_classes else "heads")

    @property
    def _learns_classes(self) -> bool:
        return bool(self.num_classes) and "joint" in self.config.stages

    @functools.cached_property
    def network(self) -> MotionHierarchy:
        """The Linen module whose variables this method works on."""
        config, dtype = self.config, jnp.dtype(self.config.dtype)
        heads = SideBranch(
            self.num_classes,
            config.levels,
            config.flow_channels,
            config.prediction_steps,
            config.positions,
            config.motion_share,
            config.self_paired,
            dtype,
        )
        backbone = config.backbone.build(motion_blocks=config.motion_blocks, dtype=dtype)
        return MotionHierarchy(backbone, self.num_classes if self._learns_classes else 0, heads=heads)

    @functools.cached_property
    def stages(self) -> tuple[Stage, ...]:
        """A stage for each level (or one for all), then the joint one where there are labels."""
        config = self.config
        levels = range(len(config.levels))
        groups = [(level,) for level in levels] if config.progressive else [tuple(levels)]
        named = zip(config.self_supervised_stages, groups, strict=True)
        stages = [self._level_stage(name, group) for name, group in named]
        if self._learns_classes:
            stages.append(self._joint_stage())
        return tuple(stages)

    def encode(self, variables: Variables, clips: jax.Array) -> Encoded:
        """See `Method`; levels learnt by reconstruction give flow, and the export of a recogniser gives none."""
        if "heads" not in variables["params"]:
            return super().encode(variables, clips)
        height, width = clips.shape[2:4]
        clips = self.normalise(clips)
        recognised, side = self.network.apply(variables, clips, False, True, method=self.forward)
        flow = {level: resize_flow(flow, height, width) for level, flow in side.flow.items()}
        return self.encoded(recognised)._replace(flow=flow)

    def _level_stage(self, name: str, levels: tuple[int, ...]) -> Stage:
        return Stage(
            name=name,
            schedule=self.config.stages[name],
            trainable=lambda path: any(self._trains(path, level) for level in levels),
            terms=dict(self._level_term(level) for level in levels),
            labelled_only=any(self.config.levels[level] == "action" for level in levels),
        )

    def _joint_stage(self) -> Stage:
        """HCML eq. 4; levels supervised by action have no term of their own."""
        sides = (
            self._level_term(level, self._joint_weight(level))
            for level, supervision in enumerate(self.config.levels)
            if supervision != "action"
        )
        return Stage(
            name="joint",
            schedule=self.config.stages["joint"],
            trainable=everything,
            terms={
                "classification": Term(_classification, classifies=True),
                **{name: term for name, term in sides if term.weight},
            },
            batch_norm_group=self.config.joint_batch_norm_group,
            labelled_only=True,
        )

    def _joint_weight(self, level: int) -> float:
        if self.config.levels[level] == "reconstruction":
            return self.config.reconstruction_weight
        return self.config.contrastive_weights[level - 1]

    def _level_term(self, number: int, weight: float = 1.0) -> tuple[str, Term]:
        """The name and the term of a level's supervision."""
        level, supervision = f"level{number}", self.config.levels[number]
        if supervision == "reconstruction":
            # Flow that leads out of the frame everywhere has zero loss, and no gradient to bring it back.
            kind = {"over_batch": self.config.normalise_by_valid, "floors": {VALID: 0.5}}
            compute = self._reconstruction
        else:
            kind, compute = {}, _action
            if supervision == "contrastive":
                kind, compute = {"over_batch": True, "chances": {RIGHT_TIME: f"{RIGHT_TIME}_chance"}}, self._contrast
        term = Term(functools.partial(compute, level=level), weight, **kind)
        return f"{supervision}/{level}", term

    def _reconstruction(self, forward: Forward, *, level: str):
        """HCML eq. 1 and 2 over the pairs of the level's T^l frames."""
        config = self.config
        flow = forward.outputs[1].flow[level]
        frames = self.backbone.frames_of(level, forward.clip)
        height, width = frames.shape[2:4]
        if config.photometric_size:
            height = width = config.photometric_size
            frames = resize_area(frames, height, width)
        flow = resize_flow(flow, height, width)
        warped, inside = backward_warp(frames[:, 1:], flow)
        paired = jnp.broadcast_to(self._consecutive(forward, level)[..., None, None], inside.shape)
        valid = inside & paired
        penalty = {"alpha": config.charbonnier_alpha, "epsilon": config.charbonnier_epsilon}
        photometric = photometric_loss(
            frames[:, :-1], warped, valid, normalise_by_valid=config.normalise_by_valid, **penalty
        )
        smoothness = smoothness_loss(flow, **penalty)
        report = {
            "photometric": photometric,
            "smoothness": smoothness,
            "flow_magnitude": jnp.linalg.norm(flow, axis=-1).mean(),
            VALID: masked_mean(valid.astype(jnp.float32), paired),
        }
        return photometric + config.smoothness_weight * smoothness, report

    def _contrast(self, forward: Forward, *, level: str):
        """HCML eq. 3, averaged over the predictions."""
        recognised, side = forward.outputs
        predictions, blind, targets, predictable = side.futures[level]
        if not self.config.target_gradients:
            targets = jax.lax.stop_gradient(targets)
        consecutive = self._consecutive(forward, level)
        kept, candidates = comparable(consecutive, predictable, len(predictions), targets.shape[2])
        if self.config.centre_targets:
            targets = centre(targets, candidates)
        compared = functools.partial(self._compare, targets=targets, candidates=candidates)
        losses, hits = compared(predictions)
        ways = {"copying": jnp.broadcast_to(targets, predictions.shape), "without_motion": blind}
        without = {name: masked_mean(compared(jax.lax.stop_gradient(way)).losses, kept) for name, way in ways.items()}
        report = contrast_report(predictions, targets, hits, kept, candidates)
        return masked_mean(losses, kept), report | without | spread_report(paired(recognised.features[level]))

    def _compare(self, predictions: jax.Array, targets: jax.Array, candidates: jax.Array) -> InfoNCE:
        """The loss of each prediction, and whether it finds its target among all."""
        queries, keys, positives = pair_predictions(predictions, targets)
        # Pairs with equal owners are excluded: queries meet only targets that are candidates.
        owners = jnp.zeros(len(queries), jnp.int32), candidates.astype(jnp.int32)
        form, temperature = choose_form(len(queries), len(keys)), self.config.temperature
        losses, hits = info_nce_and_hits(queries, keys, positives, temperature=temperature, form=form, owners=owners)
        if share := self.config.temporal_weight:
            in_time = info_nce_in_time(predictions, targets, candidates, temperature=temperature)
            losses = (1 - share) * losses + share * in_time.losses
        return InfoNCE(losses, hits)

    def _consecutive(self, forward: Forward, level: str) -> jax.Array:
        """Whether each of the level's frames leads on to its next one without a break: bool `[B, T^l - 1]`."""
        consecutive = forward.batch.consecutive[:, 0]
        frames = self.frames_of(forward.clip.shape[1])[level]
        if len(frames) < 2:
            raise ValueError(f"{level} has {len(frames)} frame: motion needs 2 or more; use longer clips")
        ways = [consecutive[:, a:b].all(1) for a, b in itertools.pairwise(frames)]
        return jnp.stack(ways, axis=1)

    def _trains(self, path: tuple[str, ...], level: int) -> bool:
        """Whether a parameter trains with a level: what lies above P^{l-1}, up to P^l (HCML 3.1)."""
        # g^l (`expand`) follows P^l: it trains with the level above, and P^l stays as its own stage left it.
        if under(path, f"backbone/level{level}/expand"):
            return False
        own = [f"backbone/{module}" for module in self.config.own_modules(level)]
        own += [f"backbone/level{level}", f"heads/level{level}"]
        below = [f"backbone/level{level - 1}/expand"] if level else []
        return under(path, *own, *below)


def _classification(forward: Forward):
    return classification_loss(forward.outputs[0].logits, forward.batch.label)


def _action(forward: Forward, *, level: str):
    return classification_loss(forward.outputs[1].actions[level], forward.batch.label)
