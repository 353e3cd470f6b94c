"""The network of HCML: a backbone with motion blocks and the side branch that teaches them."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from hcml_jax.contrastive import gather_positions, sample_positions
from hcml_jax.methods.hcml_config import HCMLConfig
from hcml_jax.models import Classifier, FlowHead, Predictors
from hcml_jax.models.layers import Train
from hcml_jax.ops import avg_pool_to


class HCMLNetwork(nn.Module):
    """Backbone, one head for each level's supervision, classifier. What a caller leaves unused costs nothing in jit."""

    config: HCMLConfig
    classes: int

    def setup(self):
        config, dtype = self.config, jnp.dtype(self.config.dtype)
        self.backbone = config.backbone.build(motion_blocks=config.motion_blocks, dtype=dtype)
        self.heads = Heads(config, self.classes)
        if self.classes:
            self.classifier = Classifier(self.classes)

    def __call__(self, clip: jax.Array, key: jax.Array, train: Train) -> dict[str, jax.Array]:
        """Everything that losses and evaluations read.

        Args:
          clip: `[B, T, H, W, 3]`, normalised.
          key: draws the positions at which contrastive levels predict.
          train: how batch normalisation behaves.

        Returns:
          "embedding" `[B, C]`, the backbone's features, "logits" `[B, classes]`, and by level:
          "flow/level0" `[B, T - 1, H', W', 2]`; "predictions/level1" `[K, B, T, N, D]` and
          "targets/level1" `[B, T, N, D]`; "action/level1" `[B, classes]`.
        """
        outputs = self.encode(clip, train)
        return outputs | self.heads(outputs, key)

    def encode(self, clip: jax.Array, train: Train) -> dict[str, jax.Array]:
        """The same without the side branch, whose variables may be absent."""
        embedding, features = self.backbone(clip, train)
        outputs = {"embedding": embedding, **features}
        if self.classes:
            outputs["logits"] = self.classifier(embedding)
        return outputs


class Heads(nn.Module):
    """The side branch: flow heads, predictors and classifiers of levels, each under its level's name."""

    config: HCMLConfig
    classes: int

    @nn.compact
    def __call__(self, features: dict[str, jax.Array], key: jax.Array) -> dict[str, jax.Array]:
        """See `HCMLNetwork`."""
        outputs = {}
        dtype = jnp.dtype(self.config.dtype)
        for level, supervision in enumerate(self.config.levels):
            name = f"level{level}"
            motion = features[name]
            if supervision == "reconstruction":
                head = FlowHead(self.config.flow_channels, dtype, name=name)
                # The last frame is paired with itself: its flow is never used.
                outputs[f"flow/{name}"] = head(motion[:, :-1])
            elif supervision == "action":
                pooled = motion.astype(jnp.float32).mean((1, 2, 3))
                outputs[f"action/{name}"] = Classifier(self.classes, name=name)(pooled)
            else:
                outputs |= self._predict(level, motion, features[f"level{level - 1}"], key)
        return outputs

    def _predict(self, level, motion, lower, key):
        batch, time, height, width, _ = motion.shape
        if time < 2:
            raise ValueError(
                f"level {level} has {time} frame: predicting its future needs 2 or more; use longer clips "
                "or smaller temporal strides"
            )
        lower = avg_pool_to(lower, time, height, width)
        count = min(self.config.positions, height * width)
        positions = sample_positions(jax.random.fold_in(key, level), batch, height, width, count)
        motion, lower = (gather_positions(x, positions) for x in (motion, lower))
        steps = min(self.config.prediction_steps, time - 1)
        head = Predictors(steps, jnp.dtype(self.config.dtype), name=f"level{level}")
        return {
            f"predictions/level{level}": head(motion, lower),
            f"targets/level{level}": lower.astype(jnp.float32),
        }
