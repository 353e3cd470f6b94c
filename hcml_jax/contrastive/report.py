"""What to watch of a contrastive loss: who is similar to whom, and whether features collapse."""

import jax
import jax.numpy as jnp

from hcml_jax.contrastive.candidates import align_predictions, negative_counts
from hcml_jax.ops.check import checked
from hcml_jax.ops.normalise import unit_vectors


def contrast_report(predictions, targets, hits) -> dict[str, jax.Array]:
    """How well predictions find their targets, and how similar each type of negative is.

    Args:
      predictions: [K, B, T, N, C], floating, for the steps ahead 1..K (`pair_predictions`).
      targets: [B, T, N, C], floating.
      hits: bool [M], which predictions are most similar to their target (`info_nce_and_hits`).

    Returns:
      float32 scalars without gradient: "top1", the share of hits, and the mean cosines
      "positive_cosine", "spatial_cosine", "temporal_cosine" and "easy_cosine" of the positive and
      of the negatives by type; 0 for a type of which there are none.

    Raises:
      ValueError: the shapes do not fit each other.
    """
    predictions = checked("predictions", predictions, "K B T N C")
    targets = checked("targets", targets, "B T N C")
    units = (jax.lax.stop_gradient(unit_vectors(x)) for x in (predictions, targets))
    return {"top1": jnp.mean(hits, dtype=jnp.float32)} | _mean_cosines(*units)


def _mean_cosines(predictions, targets):
    """Mean cosines by type.

    The cosine is linear in the key: a sum of cosines is the cosine with the sum of the keys, and
    each type is one such sum less another. No M x K matrix is needed.
    """
    batch, time, positions, _ = targets.shape
    counts = negative_counts(batch, positions, time)
    queries, own = align_predictions(predictions, targets)
    own_place = jnp.sum(targets, axis=1, keepdims=True)
    own_video = jnp.sum(own_place, axis=2, keepdims=True)
    every = jnp.sum(own_video, axis=0, keepdims=True)

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
