"""InfoNCE with cosine similarity."""

import jax
import jax.numpy as jnp

from hcml_jax.ops.check import check_equal, checked
from hcml_jax.ops.normalise import unit_vectors

FORMS = ("dense",)


def info_nce(
    queries, keys, positives, *, temperature: float, form: str = "dense", mesh=None
) -> jax.Array:
    """Cross-entropy of finding each query's positive among all keys (HCML, equation 3).

    -log( exp(cos(q_i, k_p(i)) / tau) / sum_j exp(cos(q_i, k_j) / tau) ), one loss for each query;
    HCML sums them, this library takes their mean.

    Args:
      queries: [M, C], floating.
      keys: [K, C], floating.
      positives: [M], integers in [0, K): the row of `keys` that is the positive of each query. One
        that is K or more gives a loss of NaN.
      temperature: tau, above 0.
      form: "dense" holds the M x K similarities. It is written on global arrays: under jit, with
        queries and keys sharded over devices, XLA brings every device the keys of all.
      mesh: for forms that place their own communication; "dense" makes no use of it.

    Returns:
      float32 [M], at least 0; log K where all keys are alike. All maths is in float32.

    Raises:
      ValueError: the shapes do not fit, an unknown form, or a temperature that is not above 0.
    """
    del mesh
    if form not in FORMS:
        raise ValueError(f"form: expected one of {', '.join(FORMS)}, found {form!r}")
    if temperature <= 0:
        raise ValueError(f"temperature: expected a number above 0, found {temperature}")
    queries, keys, positives = check_candidates(queries, keys, positives)
    logits = cosine_similarity(queries, keys) / temperature
    positive = jnp.take_along_axis(logits, positives[:, None], axis=1)[:, 0]
    return jax.nn.logsumexp(logits, axis=1) - positive


def cosine_similarity(queries, keys) -> jax.Array:
    """float32 [M, K]: the cosine of each of [M, C] with each of [K, C]; 0 for zero vectors."""
    # The default would round to bfloat16 on TPU: an error of 0.05 once divided by tau = 0.07.
    highest = jax.lax.Precision.HIGHEST
    return jnp.matmul(unit_vectors(queries), unit_vectors(keys).T, precision=highest)


def check_candidates(queries, keys, positives):
    """Queries, keys and positives as arrays, or a ValueError that says what does not fit."""
    queries, keys = checked("queries", queries, "M C"), checked("keys", keys, "K C")
    positives = checked("positives", positives, "M", jnp.integer)
    check_equal("keys: channels of queries", keys.shape[1], queries.shape[1])
    check_equal("positives: number of queries", positives.shape, queries.shape[:1])
    return queries, keys, positives
