"""From a backbone's features to motion maps of a low resolution (CGM-Net)."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from hcml_jax.models.convolution import Conv
from hcml_jax.models.layers import ConvNorm, Train
from hcml_jax.ops import copying_filter

KERNEL = (3, 3, 3)


class Filters(nn.Module):
    """A convolution that outputs filters as differences from the copying filter, small at initialisation.

    Its input is divided by the square root of the fan-in. Adam moves all weights by similar amounts, so that otherwise
    the filters of a wide convolution would jump in the first steps, far from any that make a frame.

    Attributes:
      channels: of the outcome.
      kernel: in time, height, width.
      dtype: what it computes in.
    """

    channels: int
    kernel: tuple[int, int, int]
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `[B, T, H, W, C]` to float32 `[B, T, H, W, channels]`."""
        fan_in = math.prod(self.kernel) * x.shape[-1]
        small = nn.initializers.normal(1e-2)
        conv = Conv(self.channels, self.kernel, bias=True, kernel_init=small, dtype=self.dtype, name="conv")
        return conv(x * fan_in**-0.5).astype(jnp.float32)


class MotionMapDecoder(nn.Module):
    """Trilinear upsampling and 3x3x3 convolutions, in turn; then motion maps and motion features (CGM-Net 3.3).

    Attributes:
      widths: channels of each convolution; each step doubles frames, rows and columns, up to those of the output
        grid.
      filter_size: k of the maps.
      channels: of the motion features; 0: those of the last step are the motion features, which guide nothing.
      dtype: what convolutions compute in.
    """

    widths: tuple[int, ...] = (320, 128, 128, 64)
    filter_size: int = 5
    channels: int = 128
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, grid: tuple[int, int, int], train: Train) -> tuple[jax.Array, jax.Array]:
        """Maps features to a grid of T frames, h rows and w columns.

        Args:
          x: `[B, T', h', w', C]`, no finer than the grid.
          grid: `(T, h, w)`.
          train: how batch normalisation behaves.

        Returns:
          Motion maps `[B, T, h, w, k k]`, float32, and motion features `[B, T, h, w, C]`.

        Raises:
          ValueError: the convolutions are too few to come to the grid, or the features are finer than it.
        """
        if any(n > m for n, m in zip(x.shape[1:4], grid, strict=True)):
            raise ValueError(
                f"features of {x.shape[1:4]} cells are finer than the motion maps' {grid}: take a smaller scale"
            )
        for number, width in enumerate(self.widths):
            size = tuple(min(2 * n, m) for n, m in zip(x.shape[1:4], grid, strict=True))
            x = jax.image.resize(x, (x.shape[0], *size, x.shape[-1]), "linear")
            x = ConvNorm(width, KERNEL, dtype=self.dtype, name=f"step{number}")(x, train)
        if x.shape[1:4] != grid:
            raise ValueError(
                f"decoder_widths: {len(self.widths)} steps, each to twice the size, end at {x.shape[1:4]} cells, short "
                f"of the motion maps' {grid}; add steps, or take a larger scale"
            )
        maps = Filters(self.filter_size**2, KERNEL, self.dtype, name="maps")(x)
        motion = ConvNorm(self.channels, KERNEL, dtype=self.dtype, name="motion")(x, train) if self.channels else x
        return maps + copying_filter(self.filter_size), motion
