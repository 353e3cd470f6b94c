"""Class scores of motion maps (CGM-Net)."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from hcml_jax.models.heads import Classifier
from hcml_jax.models.layers import ConvNorm, Train, at_least_float32


class ActionCNN(nn.Module):
    """3x3x3 convolutions and a linear classifier of their mean (CGM-Net 3.4: six, of which it gives no sizes).

    Attributes:
      classes: of the classifier.
      widths: channels of each convolution.
      strides: of each, in time and in space.
      dtype: what convolutions compute in.
    """

    classes: int
    widths: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, maps: jax.Array, train: Train) -> jax.Array:
        """Maps `[B, T, H, W, k k]` to class scores `[B, classes]`, float32."""
        x = maps
        for number, (width, stride) in enumerate(zip(self.widths, self.strides, strict=True)):
            x = ConvNorm(width, (3, 3, 3), (stride,) * 3, dtype=self.dtype, name=f"conv{number}")(x, train)
        return Classifier(self.classes, name="classifier")(at_least_float32(x).mean((1, 2, 3)))
