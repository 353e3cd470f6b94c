"""SlowFast (Feichtenhofer et al., 2019): a slow pathway that sees few frames, a light fast one that sees all."""

from collections.abc import Callable
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from hcml_jax.models.backbone import Backbone, FeatureSpec
from hcml_jax.models.layers import ConvNorm, Train
from hcml_jax.models.pool import max_pool
from hcml_jax.models.residual import Stage
from hcml_jax.models.resnet import DEPTHS, STAGES

FAST_SHARE = 8  # the fast pathway has an eighth of the slow one's channels


class SlowFast(Backbone):
    """Two networks of bottlenecks; after each stage but the last, fast features are concatenated to slow ones.

    Motion blocks are in the slow pathway. The embedding concatenates the means of both pathways, slow first.

    Attributes:
      depth: 50 or 101.
      alpha: fast frames per slow frame.
      lateral_kernel: length in time of the lateral convolutions of fast features.
      long_blocks: number of blocks with a convolution in time in each stage that has such blocks.
      width: channels of the slow stem.
    """

    motion_stages: ClassVar = ("res2", "res3", "res4")

    depth: int = 50
    alpha: int = 4
    lateral_kernel: int = 7
    long_blocks: tuple[int, int, int, int] = (3, 4, 6, 3)
    width: int = 64

    @property
    def stage_specs(self) -> dict[str, FeatureSpec]:
        """ "stem", "res2" ... "res5" of the slow pathway, "fast_stem", ... of the fast one."""
        specs = {}
        for number, name in enumerate(self.stages):
            channels = self.width * (2 ** (number + 1) if number else 1)
            side = 4 * 2 ** max(0, number - 1)
            specs[name] = FeatureSpec(channels, (self.alpha, side, side))
            specs[f"fast_{name}"] = FeatureSpec(channels // FAST_SHARE, (1, side, side))
        return specs

    @property
    def stages(self) -> tuple[str, ...]:
        """ "stem", "res2" ... "res5"."""
        return ("stem", *STAGES)

    def modules_of(self, stage: str) -> tuple[str, ...]:
        """See `Backbone`; includes the fast modules whose features the slow pathway has received."""
        slow = super().modules_of(stage)
        fast = (f"{path}_{below}" for below in slow[:-1] for path in ("fast", "lateral"))
        return (*slow, *fast)

    def frames_of(self, feature: str, clip: jax.Array) -> jax.Array:
        """See `Backbone`; the slow pathway sees frames spread from the first to the last, as published."""
        slow = self.feature_spec[feature].strides[0] == self.alpha
        return self._slow_frames(clip) if slow else clip

    @nn.compact
    def __call__(self, clip: jax.Array, train: Train) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Embeds clips; see `Backbone`.

        Raises:
          ValueError: also if the frames do not divide by `alpha`.
        """
        self.check_clip(clip.shape)
        slow, fast, features = self._slow_frames(clip), clip, {}
        for name in self.stages:
            slow = self.stage(name)(slow, train)
            slow, found = self.move(name, slow, train)
            fast = self.stage(f"fast_{name}")(fast, train)
            features |= {name: slow, f"fast_{name}": fast, **found}
            if name != self.stages[-1]:
                lateral = self._lateral(name, 2 * fast.shape[-1])(fast, train)
                slow = jnp.concatenate([slow, lateral], axis=-1)
        return jnp.concatenate([self.embed(x, train) for x in (slow, fast)], axis=-1), features

    def last_map(self, features: dict[str, jax.Array]) -> jax.Array:
        """See `Backbone`; each fast frame is joined with the slow features that are nearest in time."""
        slow, fast = (features[path + self.stages[-1]] for path in ("", "fast_"))
        away = np.abs(np.arange(fast.shape[1])[:, None] - self._slow_numbers(fast.shape[1]))
        return jnp.concatenate([slow[:, away.argmin(axis=1)], fast], axis=-1)

    def _slow_frames(self, clip: jax.Array) -> jax.Array:
        return clip[:, self._slow_numbers(clip.shape[1])]

    def _slow_numbers(self, frames: int) -> np.ndarray:
        if frames % self.alpha:
            raise ValueError(f"{frames} frames do not divide by {self.alpha}, the ratio of SlowFast's two pathways")
        return np.linspace(0, frames - 1, frames // self.alpha).astype(int)

    def stage(self, name: str) -> Callable[[jax.Array, Train], jax.Array]:
        """The module of a stage of either pathway."""
        fast, place = name.startswith("fast_"), name.removeprefix("fast_")
        width = self.width // FAST_SHARE if fast else self.width
        if place == "stem":
            return Stem(width, 5 if fast else 1, self.dtype, name=name)
        number = STAGES.index(place)
        spatial = 1 if number == 0 else 2
        in_time = fast or place in ("res4", "res5")
        return Stage(
            blocks=DEPTHS[self.depth][0][number],
            bottleneck=True,
            features=width * 2**number,
            strides=(1, spatial, spatial),
            long_blocks=self.long_blocks[number] if in_time else 0,
            zero_scale=True,
            dtype=self.dtype,
            name=name,
        )

    def _lateral(self, name: str, features: int) -> ConvNorm:
        """Brings the fast pathway's features to the slow one's frames."""
        kernel, strides = (self.lateral_kernel, 1, 1), (self.alpha, 1, 1)
        return ConvNorm(features, kernel, strides, dtype=self.dtype, name=f"lateral_{name}")


class Stem(nn.Module):
    """A convolution of `in_time` x 7 x 7 and a max-pool, each of stride 2 in space."""

    features: int
    in_time: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: Train) -> jax.Array:
        """Maps `[B, T, H, W, 3]` to `[B, T, ceil(H / 4), ceil(W / 4), features]`."""
        kernel = (self.in_time, 7, 7)
        x = ConvNorm(self.features, kernel, (1, 2, 2), dtype=self.dtype, name="conv")(x, train)
        return max_pool(x, (1, 3, 3), (1, 2, 2))
