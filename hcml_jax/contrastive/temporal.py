"""InfoNCE over the times of one position: find the right future, given the video and the position."""

import jax
import jax.numpy as jnp

from hcml_jax.contrastive.candidates import align_predictions
from hcml_jax.contrastive.info_nce import InfoNCE
from hcml_jax.contrastive.streaming import FLOOR
from hcml_jax.ops.normalise import unit_vectors


def info_nce_in_time(predictions, targets, candidates, *, temperature) -> InfoNCE:
    """Cross-entropy of finding each prediction's target among the targets of its own video and position.

    Of HCML's negatives (supplement B), only the temporal ones are used. Spatial and easy ones outnumber them by
    hundreds, so that copying the present nearly solves a loss over all negatives, but not this one.

    Args:
      predictions: [K, B, T, N, C], floating, for the steps ahead 1..K (`pair_predictions`).
      targets: [B, T, N, C], floating.
      candidates: bool [B*T*N], which targets are compared (`comparable`).
      temperature: tau, above 0.

    Returns:
      losses float32 [M] and hits bool [M], in the order of `pair_predictions`; meaningless for predictions whose own
      target is not a candidate.

    Raises:
      ValueError: the shapes do not fit each other.
    """
    batch, time, positions, _ = targets.shape
    units = unit_vectors(targets)
    queries, _ = align_predictions(unit_vectors(predictions), units)
    precise = {"precision": jax.lax.Precision.HIGHEST}
    logits = jnp.einsum("bsnc,btnc->bsnt", queries, units, **precise) / temperature
    compared = candidates.reshape(batch, time, positions).transpose(0, 2, 1)[:, None]
    logits = jnp.where(compared, logits, FLOOR)
    positive = jnp.take_along_axis(logits, _own_times(len(predictions), time)[None, :, None, None], axis=-1)
    losses = jax.nn.logsumexp(logits, axis=-1) - positive[..., 0]
    hits = jnp.sum(logits >= positive, axis=-1) == 1  # the positive itself
    return InfoNCE(losses.reshape(-1), hits.reshape(-1))


def _own_times(steps: int, time: int) -> jax.Array:
    """The time that each prediction predicts, int [S], in the order of `align_predictions`."""
    return jnp.concatenate([jnp.arange(ahead, time) for ahead in range(1, steps + 1)])
