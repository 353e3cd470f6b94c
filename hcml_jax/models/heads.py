"""The side branch that teaches the motion features, projections, both dropped after training; and classifiers."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from hcml_jax.models.convolution import convolve


class FlowHead(nn.Module):
    """Optical flow from motion features: five densely connected convolutions (HCML 3.1; PWC-Net's estimator).

    Each 3x3 convolution sees the motion features and the outputs of all convolutions before it.
    """

    channels: tuple[int, ...] = (128, 128, 96, 64, 32)
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, motion: jax.Array) -> jax.Array:
        """Maps `[B, T, H, W, C]` to flow (u right, v down) `[B, T, H, W, 2]`, float32, in cells of this grid."""
        x = motion.astype(self.dtype)
        for number, channels in enumerate(self.channels):
            y = _Conv3x3(channels, self.dtype, name=f"conv{number}")(x)
            x = jnp.concatenate([x, nn.leaky_relu(y, 0.1)], axis=-1)
        return _Conv3x3(2, self.dtype, name="flow")(x).astype(jnp.float32)


class _Conv3x3(nn.Module):
    """A 3x3 convolution of every frame, with a bias; its kernel is stored as Flax stores 2-D ones."""

    features: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `[B, T, H, W, C]` to `[B, T, H, W, features]`."""
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (3, 3, x.shape[-1], self.features), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
        return convolve(x, kernel[None].astype(self.dtype), (1, 1, 1)) + bias.astype(self.dtype)


class Predictors(nn.Module):
    """Predicts the lower level's future: W2_delta ReLU(W1 [P_t, Q_t]), W1 shared by all steps (HCML 3.1)."""

    steps: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, motion: jax.Array, lower: jax.Array) -> jax.Array:
        """Predicts `lower` at the `steps` frames that follow each frame.

        Args:
          motion: P^l at some positions, `[B, T, N, C]`.
          lower: Q, the lower level's motion features there, `[B, T, N, D]`.

        Returns:
          `[steps, B, T, N, D]`, float32: entry `[k, :, t]` predicts `lower` at frame t + k + 1.
        """
        joined = jnp.concatenate([motion, lower.astype(motion.dtype)], axis=-1)
        hidden = nn.relu(nn.Dense(motion.shape[-1], dtype=self.dtype, name="hidden")(joined))
        outputs = [nn.Dense(lower.shape[-1], dtype=self.dtype, name=f"step{k + 1}")(hidden) for k in range(self.steps)]
        return jnp.stack(outputs).astype(jnp.float32)


class Projection(nn.Module):
    """Two layers, between which a ReLU stands (MoCo v2); on a map, two 1x1 convolutions.

    Attributes:
      channels: of the outcome.
      hidden: channels between the layers; 0: as many as they are given.
    """

    channels: int
    hidden: int = 0

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `[..., C]` to `[..., channels]`."""
        return nn.Dense(self.channels, name="out")(nn.relu(nn.Dense(self.hidden or x.shape[-1], name="hidden")(x)))


class SideBySide(nn.Module):
    """R linear classifiers of the same features, which start at zero."""

    classes: int
    count: int

    @nn.compact
    def __call__(self, features: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Maps `[B, C]` to class scores `[B, R, classes]` and the squared norms of the kernels `[R]`, float32."""
        zeros, (_, channels) = nn.initializers.zeros, features.shape
        kernel = self.param("kernel", zeros, (self.count, channels, self.classes), jnp.float32)
        bias = self.param("bias", zeros, (self.count, self.classes), jnp.float32)
        scores = jnp.einsum("bc,rck->brk", features.astype(jnp.float32), kernel)
        return scores + bias[None], jnp.square(kernel).sum((1, 2))


class Classifier(nn.Module):
    """A linear classifier of pooled features; `[B, C]` to logits `[B, classes]`, float32."""

    classes: int

    @nn.compact
    def __call__(self, embedding: jax.Array) -> jax.Array:
        """Maps `[B, C]` to `[B, classes]`."""
        return nn.Dense(self.classes, name="logits")(embedding.astype(jnp.float32))
