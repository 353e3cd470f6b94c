"""Hierarchical contrastive motion learning (Yang et al., HCML): a motion hierarchy learnt level by level.

Level 0 learns motion by reconstructing frames; each higher level by predicting the future motion features of the
level below, contrastively, with the lower levels frozen; then everything is trained jointly for recognition.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from hcml_jax import augment
from hcml_jax.config import ConfigError
from hcml_jax.contrastive import (
    choose_form,
    contrast_report,
    info_nce_and_hits,
    pair_predictions,
    spread_report,
)
from hcml_jax.methods.base import (
    Batch,
    Outputs,
    Stage,
    Variables,
    dropout_key,
    everything,
    under,
)
from hcml_jax.methods.classification import classification_loss
from hcml_jax.methods.hcml_config import HCMLConfig
from hcml_jax.methods.hcml_network import HCMLNetwork
from hcml_jax.methods.recogniser import Recogniser
from hcml_jax.models import TrainMode
from hcml_jax.ops import (
    backward_warp,
    photometric_loss,
    resize_area,
    resize_flow,
    smoothness_loss,
)


@dataclasses.dataclass(frozen=True)
class HCML(Recogniser):
    """The method; `num_classes` 0 leaves out the joint stage."""

    config: HCMLConfig
    num_classes: int = 0

    def __post_init__(self):
        if "action" in self.config.levels and not self.num_classes:
            raise ConfigError("levels: the supervision 'action' needs a table with labels")

    @functools.cached_property
    def network(self) -> HCMLNetwork:
        """The Linen module whose variables this method works on."""
        return HCMLNetwork(self.config, self.num_classes)

    @functools.cached_property
    def stages(self) -> tuple[Stage, ...]:
        """A stage for each level (or one for all), then the joint one where there are labels."""
        config = self.config
        levels = range(len(config.levels))
        groups = [(level,) for level in levels] if config.progressive else [tuple(levels)]
        named = zip(config.self_supervised_stages, groups, strict=True)
        stages = [self._level_stage(name, group) for name, group in named]
        if self.num_classes and "joint" in config.stages:
            stages.append(self._joint_stage())
        return tuple(stages)

    def init(self, key: jax.Array, batch: Batch) -> Variables:
        """Fresh variables; only the shape of `batch["clip"]` matters."""
        return self.network.init(key, augment.to_float(batch["clip"]), key, False)

    def loss(
        self, variables: Variables, batch: Batch, key: jax.Array, stage: Stage
    ) -> tuple[jax.Array, Outputs]:
        """The weighted sum of the stage's terms (HCML eq. 4 in the joint stage)."""
        flip_key, position_key = jax.random.split(key)
        clip = augment.to_float(batch["clip"])
        clip = augment.random_flip(flip_key, clip) if self.config.flip else clip
        train = TrainMode(stage.trainable, stage.batch_norm_group)
        outputs, state = self.network.apply(
            variables,
            self.normalise(clip),
            position_key,
            train,
            mutable=["batch_stats"],
            rngs=dropout_key(key),
        )
        total, metrics = jnp.zeros(()), {}
        for name, weight in stage.losses.items():
            term, report = self._term(name, outputs, clip, batch["label"])
            total += weight * term
            metrics |= {name: term} | {f"{name}/{key}": value for key, value in report.items()}
        return total, Outputs({"loss": total, **metrics}, state)

    def flow(self, variables: Variables, clips: jax.Array) -> dict[str, jax.Array]:
        """Optical flow of the levels learnt by reconstruction.

        Returns:
          level name -> `[B, T^l - 1, H, W, 2]`, (u right, v down) in pixels of the clip, from each of the level's
          T^l frames (`frames_of`) to its next.
        """
        clips = self.normalise(augment.to_float(clips))
        outputs = self.network.apply(variables, clips, jax.random.key(0), False)
        height, width = clips.shape[2:4]
        return {
            name.removeprefix("flow/"): resize_flow(flow, height, width)
            for name, flow in outputs.items()
            if name.startswith("flow/")
        }

    def _level_stage(self, name: str, levels: tuple[int, ...]) -> Stage:
        supervisions = {level: self.config.levels[level] for level in levels}
        losses = {f"{supervision}/level{l}": 1.0 for l, supervision in supervisions.items()}
        return Stage(
            name=name,
            schedule=self.config.stages[name],
            trainable=functools.partial(self._trains_any, levels=levels),
            losses=losses,
            labelled_only="action" in supervisions.values(),
            over_batch=self._over_batch(losses),
        )

    def _joint_stage(self) -> Stage:
        config = self.config
        weights = {
            f"{supervision}/level{level}": config.reconstruction_weight
            if supervision == "reconstruction"
            else config.contrastive_weights[level - 1]
            for level, supervision in enumerate(config.levels)
            if supervision != "action"
        }
        sides = {name: weight for name, weight in weights.items() if weight}
        return Stage(
            name="joint",
            schedule=config.stages["joint"],
            trainable=everything,
            losses={"classification": 1.0, **sides},
            batch_norm_group=config.joint_batch_norm_group,
            labelled_only=True,
            over_batch=self._over_batch(sides),
        )

    def _over_batch(self, losses) -> tuple[str, ...]:
        """Terms that are no means over clips: contrast, and reconstruction over as many pixels as are valid."""
        kinds = (
            ("contrastive", "reconstruction")
            if self.config.normalise_by_valid
            else ("contrastive",)
        )
        return tuple(name for name in losses if name.startswith(kinds))

    def _term(self, name, outputs, clip, labels):
        """One term of the loss and what to report of it."""
        if name == "classification":
            return classification_loss(outputs["logits"], labels)
        supervision, level = name.split("/")
        if supervision == "action":
            return classification_loss(outputs[f"action/{level}"], labels)
        if supervision == "reconstruction":
            frames = self.backbone.frames_of(level, clip)
            return self._reconstruction(outputs[f"flow/{level}"], frames)
        return self._contrast(outputs, level)

    def _reconstruction(self, flow, frames):
        """HCML eq. 1 and 2 over the pairs of the level's T^l frames."""
        config = self.config
        height, width = frames.shape[2:4]
        if config.photometric_size:
            height = width = config.photometric_size
            frames = resize_area(frames, height, width)
        flow = resize_flow(flow, height, width)
        warped, valid = backward_warp(frames[:, 1:], flow)
        penalty = {"alpha": config.charbonnier_alpha, "epsilon": config.charbonnier_epsilon}
        photometric = photometric_loss(
            frames[:, :-1], warped, valid, normalise_by_valid=config.normalise_by_valid, **penalty
        )
        smoothness = smoothness_loss(flow, **penalty)
        report = {
            "photometric": photometric,
            "smoothness": smoothness,
            "flow_magnitude": jnp.linalg.norm(flow, axis=-1).mean(),
        }
        return photometric + config.smoothness_weight * smoothness, report

    def _contrast(self, outputs, level):
        """HCML eq. 3, averaged over the predictions."""
        predictions, targets = outputs[f"predictions/{level}"], outputs[f"targets/{level}"]
        if not self.config.target_gradients:
            targets = jax.lax.stop_gradient(targets)
        candidates = pair_predictions(predictions, targets)
        form = choose_form(len(candidates[0]), len(candidates[1]))
        losses, hits = info_nce_and_hits(
            *candidates, temperature=self.config.temperature, form=form
        )
        report = contrast_report(predictions, targets, hits)
        return losses.mean(), report | spread_report(outputs[level])

    def _trains_any(self, path: tuple[str, ...], levels: tuple[int, ...]) -> bool:
        """Whether a parameter trains in the stage of these levels: what lies above P^{l-1}, up to P^l (HCML 3.1)."""
        return any(self._trains(path, level) for level in levels)

    def _trains(self, path: tuple[str, ...], level: int) -> bool:
        # g^l (`expand`) follows P^l: it trains with the level above, and P^l stays as its own stage left it.
        if under(path, f"backbone/level{level}/expand"):
            return False
        own = [f"backbone/{module}" for module in self.config.own_modules(level)]
        own += [f"backbone/level{level}", f"heads/level{level}"]
        below = [f"backbone/level{level - 1}/expand"] if level else []
        return under(path, *own, *below)
