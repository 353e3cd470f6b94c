"""What to watch of a contrastive loss: who is similar to whom, and whether features collapse."""

import jax
import jax.numpy as jnp

from hcml_jax.contrastive.candidates import negative_counts
from hcml_jax.contrastive.info_nce import check_candidates, cosine_similarity
from hcml_jax.ops.check import check_equal, checked
from hcml_jax.ops.normalise import unit_vectors


def contrast_report(
    queries, keys, positives, *, batch: int, time: int, positions: int
) -> dict[str, jax.Array]:
    """How well queries find their positives, and how similar each type of negative is.

    Args:
      queries: [M, C], floating.
      keys: [B*T*N, C], floating, in the order of [B, T, N] (`pair_predictions`).
      positives: integers [M].
      batch: B, videos.
      time: T, frames.
      positions: N, positions of each video.

    Returns:
      float32 scalars without gradient: "top1", the share of queries whose positive is more similar
      than every other key (a tie is a miss, or collapsed features would score 1), and the mean
      cosines "positive_cosine", "spatial_cosine", "temporal_cosine" and "easy_cosine" of the
      positive and of the negatives by type; 0 for a type of which there are none.

    Raises:
      ValueError: the shapes do not fit each other.
    """
    queries, keys, positives = check_candidates(queries, keys, positives)
    check_equal("keys: batch * time * positions", keys.shape[0], batch * time * positions)
    queries, keys = (jax.lax.stop_gradient(unit_vectors(x)) for x in (queries, keys))
    counts = negative_counts(batch, positions, time)
    cosines = _mean_cosines(queries, keys.reshape(batch, time, positions, -1), positives, counts)
    return {"top1": _top1(queries, keys, positives)} | cosines


def _top1(queries, keys, positives):
    similarity = cosine_similarity(queries, keys)
    positive = jnp.take_along_axis(similarity, positives[:, None], axis=1)
    at_least = jnp.sum(similarity >= positive, axis=1)  # the positive itself is one of them
    return jnp.mean(at_least == 1, dtype=jnp.float32)


def _mean_cosines(queries, keys, positives, counts):
    """Mean cosines by type; queries and keys [B, T, N, C] of unit length.

    The cosine is linear in the key: a sum of cosines is the cosine with the sum of the keys, and
    each type is one such sum less another. No M x K matrix is needed.
    """
    _, time, number, _ = keys.shape
    video, place = positives // (time * number), positives % number
    moment = positives // number % time
    every = jnp.sum(keys, axis=(0, 1, 2))[None]
    own_video = jnp.sum(keys, axis=(1, 2))[video]
    own_place = jnp.sum(keys, axis=1)[video, place]
    own = keys[video, moment, place]

    def mean_cosine(total, count):
        return jnp.mean(jnp.sum(queries * total, axis=-1)) / max(count, 1)

    return {
        "positive_cosine": mean_cosine(own, 1),
        "spatial_cosine": mean_cosine(own_video - own_place, counts["spatial"]),
        "temporal_cosine": mean_cosine(own_place - own, counts["temporal"]),
        "easy_cosine": mean_cosine(every - own_video, counts["easy"]),
    }


def spread_report(features) -> dict[str, jax.Array]:
    """How far features spread over directions; collapse shows here first.

    Both figures are taken of the features scaled to length 1, as the loss sees them.

    Args:
      features: [..., C], floating; each vector is one sample.

    Returns:
      float32 scalars without gradient:
      "std": the standard deviation of each channel, averaged over channels, times sqrt(C): about 1
        when directions are spread evenly over the sphere, 0 when all are alike.
      "effective_rank": the participation ratio tr(S)^2 / tr(S^2) of the covariance S: between 1
        (all variance in one direction) and C (the same in all); 0 when all are alike.

    Raises:
      ValueError: `features` is not a floating array with at least one axis.
    """
    features = jax.lax.stop_gradient(checked("features", features, "... C"))
    channels = features.shape[-1]
    units = unit_vectors(features).reshape(-1, channels)
    centred = units - jnp.mean(units, axis=0, keepdims=True)
    covariance = jnp.matmul(centred.T, centred, precision=jax.lax.Precision.HIGHEST) / len(units)
    variances = jnp.diagonal(covariance)
    total = jnp.sum(variances)
    # Below 1e-10 the covariance is rounding, and its rank means nothing.
    rank = jnp.where(total > 1e-10, total**2 / jnp.maximum(jnp.sum(covariance**2), 1e-30), 0.0)
    return {"std": jnp.mean(jnp.sqrt(variances)) * channels**0.5, "effective_rank": rank}
