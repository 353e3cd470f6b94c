"""Which features are compared: HCML's predictions, positives and negatives (supplement B)."""

import jax
import jax.numpy as jnp

from hcml_jax.ops.check import check_equal, checked


def sample_positions(key, weights, count: int) -> jax.Array:
    """Draws positions of a grid for each video, without replacement, in proportion to weights.

    Args:
      key: a jax random key.
      weights: [B, H, W], floating, 0 or more: relative probability that each position of a video is drawn first. Where
        fewer than `count` are above 0, the others follow in random order.
      count: N, positions to draw for each video, at most H * W.

    Returns:
      int32 [B, N], y * W + x.

    Raises:
      ValueError: `weights` is no floating [B, H, W] array, or `count` is not in 1..H * W.
    """
    weights = checked("weights", weights, "B H W").astype(jnp.float32)
    batch, height, width = weights.shape
    if not 1 <= count <= height * width:
        raise ValueError(f"count: expected 1 to {height * width} ({height} x {width}), found {count}")
    # The largest of log-weights with Gumbel noise are a draw without replacement.
    keys = jax.random.split(key, batch)
    noise = jax.vmap(lambda k: jax.random.gumbel(k, (height * width,)))(keys)
    scores = jnp.log(jnp.maximum(weights, 1e-30)).reshape(batch, -1) + noise
    return jax.lax.top_k(scores, count)[1].astype(jnp.int32)


def gather_positions(features, positions) -> jax.Array:
    """Takes the features at each video's positions, at all times.

    Args:
      features: [B, T, H, W, C], floating.
      positions: integers [B, N], y * W + x, as `sample_positions` draws them.

    Returns:
      [B, T, N, C], the dtype of `features`.

    Raises:
      ValueError: the shapes do not fit each other.
    """
    features = checked("features", features, "B T H W C")
    positions = checked("positions", positions, "B N", jnp.integer)
    check_equal("positions: videos in features", positions.shape[0], features.shape[0])
    B, T, H, W, C = features.shape
    index = positions[:, None, :, None]
    return jnp.take_along_axis(features.reshape(B, T, H * W, C), index, axis=2)


def pair_predictions(predictions, targets) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Pairs each prediction with the target it predicts, among all targets.

    predictions[k - 1, b, t, n] predicts targets[b, t + k, n]; where t + k lies beyond the clip
    there is nothing to compare with, and the prediction is left out.

    Args:
      predictions: [K, B, T, N, C], floating, for the steps ahead 1..K; K at most T - 1.
      targets: [B, T, N, C], floating.

    Returns:
      queries: [M, C], M = B * N * ((T-1) + (T-2) + ... + (T-K)), in the order of videos.
      keys: [B*T*N, C], all targets.
      positives: int32 [M], rows of `keys`.

    Raises:
      ValueError: the shapes do not fit each other, or K is not in 1..T-1.
    """
    queries, _ = align_predictions(predictions, targets)
    batch, time, positions, channels = targets.shape
    rows = jnp.arange(batch * time * positions).reshape(batch, time, positions)
    positives = _futures(rows, len(predictions))
    return queries.reshape(-1, channels), targets.reshape(-1, channels), positives.reshape(-1)


def align_predictions(predictions, targets) -> tuple[jax.Array, jax.Array]:
    """Predictions, without those beyond the clip, beside their targets.

    Args:
      predictions, targets: as in `pair_predictions`, which has the same order.

    Returns:
      [B, S, N, C] both, S = (T-1) + (T-2) + ... + (T-K).

    Raises:
      ValueError: as there.
    """
    predictions = checked("predictions", predictions, "K B T N C")
    targets = checked("targets", targets, "B T N C")
    check_equal("predictions: [B, T, N, C] of targets", predictions.shape[1:], targets.shape)
    steps, time = len(predictions), targets.shape[1]
    if not 1 <= steps < time:
        raise ValueError(f"predictions: expected 1 to {time - 1} steps for {time} frames, found {steps}")
    # Joined along time, so that queries keep the order, and the sharding, of the videos.
    kept = [predictions[k - 1, :, : time - k] for k in range(1, steps + 1)]
    return jnp.concatenate(kept, axis=1), _futures(targets, steps)


def _futures(targets, steps: int) -> jax.Array:
    """What the predictions of 1..`steps` frames ahead predict, joined along time."""
    return jnp.concatenate([targets[:, k:] for k in range(1, steps + 1)], axis=1)


def comparable(consecutive, predictable, steps: int, positions: int) -> tuple[jax.Array, jax.Array]:
    """Masks of the predictions and of the targets that are compared.

    The features of a frame depend on the step to the next frame. A prediction depends on all steps up to and including
    that of its target: none of them may cross a break in the clip.

    Args:
      consecutive: bool [B, T - 1], whether a frame leads on to the next one.
      predictable: bool [T], at which frames there are targets; False where features see a frame paired with itself.
      steps: K, frames ahead that are predicted.
      positions: N.

    Returns:
      bool [M] and [B*T*N], in the order of `pair_predictions`.
    """
    whole = jnp.pad(consecutive, ((0, 0), (0, 1)), constant_values=True)
    reached, ways = whole, []
    for ahead in range(1, steps + 1):
        reached = reached[:, :-1] & whole[:, ahead:]
        ways.append(reached & predictable[ahead:])
    ways = jnp.concatenate(ways, axis=1)
    return tuple(jnp.repeat(of_frames.reshape(-1), positions) for of_frames in (ways, whole & predictable))


def centre(targets, candidates) -> jax.Array:
    """Targets minus the mean of the candidate targets.

    Motion features are non-negative, so any two of them are similar; without the mean they can be told apart.

    Args:
      targets: [B, T, N, C], floating.
      candidates: bool [B*T*N] (`comparable`).

    Returns:
      [B, T, N, C].
    """
    counted = candidates.reshape(*targets.shape[:3], 1)
    total = jnp.sum(targets, axis=(0, 1, 2), keepdims=True, where=counted)
    return targets - total / jnp.maximum(counted.sum(), 1).astype(targets.dtype)
