"""What to watch of a contrastive loss: who is similar to whom, and whether features collapse."""

import jax
import jax.numpy as jnp

from hcml_jax.contrastive.candidates import align_predictions
from hcml_jax.contrastive.temporal import info_nce_in_time
from hcml_jax.ops.check import checked
from hcml_jax.ops.normalise import unit_vectors


def contrast_report(predictions, targets, hits, kept, candidates) -> dict[str, jax.Array]:
    """How well predictions find their targets, and how similar each type of candidate is.

    Args:
      predictions: [K, B, T, N, C], floating, for the steps ahead 1..K (`pair_predictions`).
      targets: [B, T, N, C], floating.
      hits: bool [M], which predictions are most similar to their target (`info_nce_and_hits`).
      kept: bool [M], which predictions count; their own targets are candidates (`comparable`).
      candidates: bool [B*T*N], which targets they are compared with.

    Returns:
      float32 scalars without gradient: "top1", the share of hits; "right_time", the share of predictions that are more
      similar to their target than to all others of its position, beside "right_time_chance", what guessing would give;
      and the mean cosines "positive_cosine" with the target, "spatial_cosine" with the same video's other positions,
      "temporal_cosine" with other times of the same position, "easy_cosine" with other videos; 0 where there is nothing
      to compare with.

    Raises:
      ValueError: the shapes do not fit each other.
    """
    predictions = checked("predictions", predictions, "K B T N C")
    targets = checked("targets", targets, "B T N C")
    predictions, targets = (jax.lax.stop_gradient(unit_vectors(x)) for x in (predictions, targets))
    in_time = info_nce_in_time(predictions, targets, candidates, temperature=1.0).hits
    candidates = candidates.reshape(*targets.shape[:3], 1).astype(jnp.float32)
    queries, own = align_predictions(predictions, targets)
    totals, counts = _sums_by_type(targets * candidates, own), _sums_by_type(candidates, jnp.ones(()))
    times = jnp.broadcast_to(counts["temporal"] + counts["positive"], (*queries.shape[:3], 1))
    figures = {"top1": hits, "right_time": in_time, "right_time_chance": 1 / jnp.maximum(times.reshape(-1), 1.0)}
    kept_places = kept.reshape(*queries.shape[:3], 1)

    def mean_cosine(kind):
        pairs = jnp.sum(jnp.broadcast_to(counts[kind], kept_places.shape), where=kept_places)
        return jnp.sum(queries * totals[kind], where=kept_places) / jnp.maximum(pairs, 1.0)

    number = jnp.maximum(jnp.sum(kept, dtype=jnp.float32), 1.0)
    shares = {name: jnp.sum(values, where=kept, dtype=jnp.float32) / number for name, values in figures.items()}
    return shares | {f"{kind}_cosine": mean_cosine(kind) for kind in totals}


def _sums_by_type(targets, own) -> dict[str, jax.Array]:
    """Sums of targets [B, T, N, C] by their type for each prediction; its own targets are `own` [B, S, N, C].

    A sum of cosines is a product with the summed vectors, and each type is a difference of sums: no M x K matrix is
    needed.
    """
    place = jnp.sum(targets, axis=1, keepdims=True)
    video = jnp.sum(place, axis=2, keepdims=True)
    every = jnp.sum(video, axis=0, keepdims=True)
    return {"positive": own, "spatial": video - place, "temporal": place - own, "easy": every - video}


def spread_report(features) -> dict[str, jax.Array]:
    """Spread of features over directions, where collapse shows first.

    Both figures are computed on the features scaled to length 1, as in the loss.

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
