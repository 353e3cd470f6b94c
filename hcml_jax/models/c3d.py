"""C3D (Tran et al., 2015): eight 3x3x3 convolutions, five max-pools, two fully connected layers."""

from collections.abc import Callable
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from hcml_jax.models.backbone import Backbone, FeatureSpec
from hcml_jax.models.convolution import Conv
from hcml_jax.models.layers import Train, at_least_float32
from hcml_jax.models.pool import max_pool

CONVOLUTIONS = {"conv1": 1, "conv2": 1, "conv3": 2, "conv4": 2, "conv5": 2}


class C3D(Backbone):
    """C3D without normalisation; each stage's features are those before its pool.

    The fully connected layers fix the clip size: variables made for one size do not fit another (published:
    16 x 112 x 112). The embedding is the second layer's output. In training, dropout with rate 0.5 follows both layers
    if a "dropout" key is given.
    """

    motion_stages: ClassVar = ("conv2", "conv3", "conv4")

    @property
    def stage_specs(self) -> dict[str, FeatureSpec]:
        """ "conv1" ... "conv5"."""
        channels = (64, 128, 256, 512, 512)
        return {name: FeatureSpec(channels[n], (2 ** max(0, n - 1), 2**n, 2**n)) for n, name in enumerate(CONVOLUTIONS)}

    def stage(self, name: str) -> Callable[[jax.Array, Train], jax.Array]:
        """The module of a stage, which begins with the pool of the one before."""
        number = list(CONVOLUTIONS).index(name)
        features = self.stage_specs[name].channels
        convolutions = Convolutions(CONVOLUTIONS[name], features, self.dtype, name=name)
        if number == 0:
            return lambda x, train: convolutions(x)
        return lambda x, train: convolutions(_pool(x, 1 if number == 1 else 2))

    def embed(self, x: jax.Array, train: Train) -> jax.Array:
        """The embedding `[B, 4096]`, float32.

        Raises:
          ValueError: if the variables were made for clips of another size.
        """
        x = _pool(x, 2)
        known = self.variables.get("params", {}).get("fc6", {}).get("kernel")
        if known is not None and known.shape[:-1] != x.shape[1:]:
            raise ValueError(
                f"C3D's fully connected layers were made for clips that give a grid of {known.shape[:3]}; these give "
                f"{x.shape[1:4]}: a frame in time for 16, a cell for 32 x 32 pixels"
            )
        for layer, axes in (("fc6", (1, 2, 3, 4)), ("fc7", (1,))):
            x = nn.relu(nn.DenseGeneral(4096, axis=axes, dtype=self.dtype, name=layer)(x))
            x = nn.Dropout(0.5)(x, deterministic=not (train and self.has_rng("dropout")))
        return at_least_float32(x)


class Convolutions(nn.Module):
    """3x3x3 convolutions, each with a bias and a ReLU."""

    count: int
    features: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `[B, T, H, W, C]` to `[B, T, H, W, features]`."""
        for letter in "ab"[: self.count]:
            conv = Conv(self.features, (3, 3, 3), bias=True, dtype=self.dtype, name=letter)
            x = nn.relu(conv(x))
        return x


def _pool(x: jax.Array, in_time: int) -> jax.Array:
    """Non-overlapping 2x2 windows; one that reaches over the border counts what is inside, as Caffe's pools do."""
    window = (in_time, 2, 2)
    return max_pool(x, window, window, "same")
