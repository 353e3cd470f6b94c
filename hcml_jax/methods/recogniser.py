"""What evaluations read of a method whose network is a backbone with motion blocks and a classifier."""

import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from hcml_jax import augment
from hcml_jax.methods.base import Variables
from hcml_jax.models import Backbone, Normalisation


class Recogniser:
    """Features, motion features and class scores, from what a method's `network.encode` gives."""

    @functools.cached_property
    def backbone(self) -> Backbone:
        """The backbone's module, to read what it is like."""
        return self.config.backbone.build(motion_blocks=self.config.motion_blocks)

    def frames_of_levels(self, frames: int) -> dict[str, np.ndarray]:
        """Level name -> which of a clip's `frames` frames its motion features stand at."""
        clip = np.arange(frames)[None]
        levels = (f"level{level}" for level in range(len(self.config.motion_blocks)))
        return {level: self.backbone.frames_of(level, clip)[0] for level in levels}

    @property
    def normalisation(self) -> Normalisation:
        """By which mean and deviation the backbone takes clips."""
        backbone = self.config.backbone
        return backbone.mean, backbone.std

    def normalise(self, clips: jax.Array) -> jax.Array:
        """Clips in `[0, 1]` as the backbone takes them."""
        return augment.normalise(clips, *self.normalisation)

    def features(self, variables: Variables, clips: jax.Array) -> dict[str, jax.Array]:
        """Pooled motion features of each level, and the embedding as "backbone"; name -> `[B, C]`."""
        outputs = self._encode(variables, clips)
        pooled = {name: maps.mean((1, 2, 3)) for name, maps in _motion_maps(outputs).items()}
        return pooled | {"backbone": outputs["embedding"]}

    def motion(self, variables: Variables, clips: jax.Array) -> dict[str, jax.Array]:
        """The motion features P^l themselves: level name -> `[B, T', H', W', C]`, float32."""
        return _motion_maps(self._encode(variables, clips))

    def logits(self, variables: Variables, clips: jax.Array) -> jax.Array:
        """Class scores `[B, classes]` of clips `[B, T, H, W, 3]`, uint8 or float `[0, 1]`."""
        return self._encode(variables, clips)["logits"]

    def _encode(self, variables: Variables, clips: jax.Array) -> dict[str, jax.Array]:
        clips = self.normalise(augment.to_float(clips))
        return self.network.apply(variables, clips, False, method="encode")


def _motion_maps(outputs: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    levels = (name for name in outputs if name.startswith("level"))
    return {name: outputs[name].astype(jnp.float32) for name in levels}
