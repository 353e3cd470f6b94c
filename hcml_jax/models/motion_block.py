"""The prime motion block: motion features from the cost volume of neighbouring frames (HCML 3.1)."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp

from hcml_jax.config import ConfigError
from hcml_jax.models.convolution import Conv, has_gpu_forms
from hcml_jax.models.layers import BatchNorm, ConvNorm, Train
from hcml_jax.ops import cost_volume, cost_volume_by_shifts


@dataclasses.dataclass(frozen=True)
class MotionBlockConfig:
    """Sizes of a prime motion block.

    Attributes:
      reduction: beta, by which the 1x1x1 convolution divides the channels before matching.
      channel_divisor: motion channels are the backbone's channels over this.
      max_displacement: d, how far to search, in cells of the feature grid.
      stride: s, the step between the displacements searched.
    """

    reduction: int = 8
    channel_divisor: int = 4
    max_displacement: int = 6
    stride: int = 2

    def __post_init__(self):
        if min(self.reduction, self.channel_divisor, self.stride) < 1 or self.max_displacement < 0:
            raise ConfigError("reduction, channel_divisor and stride must be 1 or more, max_displacement 0 or more")


class MotionBlock(nn.Module):
    """Adds motion features to a backbone's features: Z = F + g(P) (HCML 3.1, Figure 2a; supplement 3.2).

    `g` (`expand`) starts at zero, so that a fresh block leaves the backbone as it was.
    """

    config: MotionBlockConfig = MotionBlockConfig()
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, features: jax.Array, train: Train) -> tuple[jax.Array, jax.Array]:
        """Makes motion features of backbone features.

        Args:
          features: F, `[B, T, H, W, C]`.
          train: how batch normalisation behaves.

        Returns:
          Z `[B, T, H, W, C]` and P, the motion features, `[B, T, H, W, C / channel_divisor]`, not negative.

        Raises:
          ValueError: if C does not divide by `reduction` and `channel_divisor`.
        """
        config = self.config
        channels = features.shape[-1]
        reduced = ConvNorm(_divide(channels, config.reduction), dtype=self.dtype, name="reduce")(features, train)
        match = cost_volume_by_shifts if has_gpu_forms() else cost_volume
        costs = match(reduced, max_displacement=config.max_displacement, stride=config.stride)
        costs = nn.relu(BatchNorm(name="cost_norm")(costs, train))
        joined = jnp.concatenate([costs, reduced], axis=-1)
        motion = ConvNorm(_divide(channels, config.channel_divisor), (1, 3, 3), dtype=self.dtype, name="join")(
            joined, train
        )
        expand = Conv(channels, kernel_init=nn.initializers.zeros, dtype=self.dtype, name="expand")
        return features + expand(motion), motion


def _divide(channels: int, divisor: int) -> int:
    if channels % divisor:
        raise ValueError(
            f"{channels} channels do not divide by {divisor}: choose a motion block `reduction` and "
            "`channel_divisor` that divide the channels of every stage with a block"
        )
    return channels // divisor
