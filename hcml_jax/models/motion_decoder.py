"""The motion decoder: predicts another view's motion from one view's frames, attending to the other's (FIMA)."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from hcml_jax.config import ConfigError
from hcml_jax.models.layers import Train, at_least_float32


@dataclasses.dataclass(frozen=True)
class MotionDecoderConfig:
    """Sizes of a motion decoder.

    Attributes:
      width: channels of its layers, a multiple of `heads`.
      layers: number of layers; 0: there is no decoder.
      heads: number of attention heads.
      dropout: dropout rate in training, of the attention and after each layer.
    """

    width: int = 512
    layers: int = 2
    heads: int = 4
    dropout: float = 0.1

    def __post_init__(self):
        if min(self.width, self.heads) < 1 or self.layers < 0 or self.width % self.heads:
            raise ConfigError(
                "width and heads must be 1 or more, heads a divisor of width, layers 0 or more; found "
                f"width={self.width}, heads={self.heads}, layers={self.layers}"
            )
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"dropout must be from 0 up and below 1, not {self.dropout}")


class MotionDecoder(nn.Module):
    """Cross-attention from places of one map, and a learnt token, to all places of another (FIMA 3.2, 3.3, Figure 6).

    Places do not attend to one another: each is decoded independently.

    Attributes:
      config: its sizes.
      dtype: what it computes in.
    """

    config: MotionDecoderConfig = MotionDecoderConfig()
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, queries: jax.Array, memory: jax.Array, train: Train) -> tuple[jax.Array, jax.Array]:
        """Decodes maps of single times.

        Args:
          queries: `[..., H, W, C]`, of one view.
          memory: `[..., H, W, C]`, of the other view at the same time.
          train: whether dropout is active; it draws from the rng stream "dropout".

        Returns:
          The decoded places, float32 `[..., H, W, C]`, and the decoded token, float32 `[..., C]`.
        """
        config, (*maps, height, width, channels) = self.config, queries.shape
        places = jnp.asarray(positions(height * width, config.width), self.dtype)
        down = nn.Dense(config.width, dtype=self.dtype, name="down")
        queries, memory = (down(x.reshape(-1, height * width, channels)) + places for x in (queries, memory))
        token = self.param("token", nn.initializers.zeros, (config.width,), jnp.float32)
        token = jnp.broadcast_to(token.astype(self.dtype), (len(queries), 1, config.width))
        x = jnp.concatenate([token, queries], axis=1)
        for number in range(config.layers):
            x = DecoderLayer(config.heads, config.dropout, self.dtype, name=f"layer{number}")(x, memory, train)
        x = at_least_float32(nn.Dense(channels, dtype=self.dtype, name="up")(x))
        return x[:, 1:].reshape(*maps, height, width, channels), x[:, 0].reshape(*maps, channels)


class DecoderLayer(nn.Module):
    """Cross-attention and a feed-forward part, each with layer normalisation first and a residual connection.

    Attributes: see `MotionDecoderConfig`. The weights of the attention are sown as "intermediates".
    """

    heads: int
    dropout: float
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, memory: jax.Array, train: Train) -> jax.Array:
        """Maps `[B, N, D]` to `[B, N, D]`, of the memory `[B, M, D]`."""
        options, still = {"dtype": self.dtype}, not train
        attend = nn.MultiHeadDotProductAttention(
            self.heads, dropout_rate=self.dropout, broadcast_dropout=False, name="attention", **options
        )
        drop = nn.Dropout(self.dropout, deterministic=still)
        y = self._normalised(x, "norm_attention")
        x = x + drop(attend(y, memory, deterministic=still, sow_weights=True))
        y = nn.relu(nn.Dense(x.shape[-1], name="hidden", **options)(self._normalised(x, "norm_feed_forward")))
        return x + drop(nn.Dense(x.shape[-1], name="out", **options)(drop(y)))

    def _normalised(self, x: jax.Array, name: str) -> jax.Array:
        return nn.LayerNorm(1e-5, name=name)(at_least_float32(x)).astype(self.dtype)


def positions(number: int, width: int) -> np.ndarray:
    """Sines and cosines of places in a row, float32 `[number, width]` (Vaswani et al., section 3.5)."""
    rates = 10_000.0 ** (-np.arange(0, width, 2) / width)
    angles = np.arange(number)[:, None] * rates
    return np.stack([np.sin(angles), np.cos(angles)], axis=-1).reshape(number, -1)[:, :width].astype(np.float32)
