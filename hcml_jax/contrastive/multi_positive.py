"""InfoNCE of queries that have several positives, or none (FIMA)."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from hcml_jax.contrastive.info_nce import InfoNCE, choose_form
from hcml_jax.contrastive.queue import ROUNDING
from hcml_jax.contrastive.streaming import FLOOR, tiles
from hcml_jax.ops.check import check_equal, checked
from hcml_jax.ops.normalise import unit_vectors

FORMS = ("dense", "chunked")
KEY_TILE = 1024


def info_nce_multi(queries, keys, positives, *, temperature, form: str = "dense", negatives=None) -> jax.Array:
    """Cross-entropy of finding any of a query's positives among all keys (FIMA eq. 3, 5 and 8).

    -log( sum over positives of exp(cos(q, k) / tau) / sum over all keys of exp(cos(q, k) / tau) ), for each query; with
    one positive each, `info_nce`.

    Args:
      queries: [M, C], floating.
      keys: [K, C], floating.
      positives: bool [M, K], which keys are the positives of each query; all others are its negatives.
      temperature: tau, above 0.
      form: both give the same losses and gradients. "dense" holds the M x (K + N) similarities; "chunked" streams the
        keys past the queries, 1,024 at a time, and recomputes the similarities for the gradient.
      negatives: [N, C], floating, further keys that are no query's positive; None: there are none.

    Returns:
      float32 [M], at least 0; a query without a positive has loss 0 and gradient 0. All maths is in float32.

    Raises:
      ValueError: the shapes do not fit, an unknown form, or a temperature that is not above 0.
    """
    options = {"temperature": temperature, "form": form, "negatives": negatives}
    return info_nce_multi_and_hits(queries, keys, positives, **options).losses


def info_nce_multi_and_hits(queries, keys, positives, *, temperature, form="dense", negatives=None) -> InfoNCE:
    """`info_nce_multi` and, from the same similarities, whether each query's best key is one of its positives."""
    if form not in FORMS:
        raise ValueError(f"form: expected one of {', '.join(FORMS)}, found {form!r}")
    if not isinstance(temperature, jax.Array) and temperature <= 0:
        raise ValueError(f"temperature: expected a number above 0, found {temperature}")
    queries, keys = checked("queries", queries, "M C"), checked("keys", keys, "K C")
    positives = checked("positives", positives, "M K", jnp.bool_)
    check_equal("keys: channels of queries", keys.shape[1], queries.shape[1])
    check_equal("positives: numbers of queries and keys", positives.shape, (len(queries), len(keys)))
    queries = unit_vectors(queries) / temperature
    absorb = _absorb_all if form == "dense" else _absorb_in_tiles
    floor = jnp.full(len(queries), FLOOR)
    sums = absorb(_Sums(floor, floor, floor, floor), queries, unit_vectors(keys), positives)
    if negatives is not None:
        negatives = checked("negatives", negatives, "N C")
        check_equal("negatives: channels of queries", negatives.shape[1], queries.shape[1])
        sums = absorb(sums, queries, unit_vectors(negatives), None)
    losses = jnp.where(jnp.any(positives, axis=1), sums.every - sums.right, 0.0)
    # Products of different shapes round differently: by less than this margin where features are equal.
    return InfoNCE(losses, sums.best_right > sums.best_wrong + ROUNDING / temperature)


def info_nce_of_clips(
    queries, keys, positives, *, temperature, negatives=None, same=None, group: int = 0, form: str | None = None
) -> InfoNCE:
    """`info_nce_multi` of the queries of each of B clips, whose positives are keys of the same clip.

    Args:
      queries: [B, M, C], floating.
      keys: [B, K, C], floating.
      positives: bool [B, M, K].
      temperature: tau, above 0.
      negatives: [N, C], floating, of other clips; None: the keys of the other clips of the batch.
      same: bool [B, B], only without `negatives`: which clips show the same content, so that the positives of one are
        also positives of the other; None: each clip is alone.
      group: only without `negatives`: how many consecutive clips of the batch are compared with one another; 0: all.
      form: of `info_nce_multi`; None: "dense" where that fits the memory (`choose_form`).

    Returns:
      losses float32 [B, M] and hits bool [B, M].

    Raises:
      ValueError: the shapes do not fit each other, or B does not divide into groups.
    """
    queries, keys = checked("queries", queries, "B M C"), checked("keys", keys, "B K C")
    positives = checked("positives", positives, "B M K", jnp.bool_)
    clips, number, per_clip = positives.shape
    check_equal("queries: clips and queries of positives", queries.shape[:2], (clips, number))
    check_equal("keys: clips and keys of positives", keys.shape[:2], (clips, per_clip))
    find = functools.partial(info_nce_multi_and_hits, temperature=temperature, negatives=negatives)
    if negatives is not None:
        form = form or _form(clips * number, per_clip + len(negatives))
        return jax.vmap(functools.partial(find, form=form))(queries, keys, positives)
    group = group or clips
    if clips % group:
        raise ValueError(f"group: a batch of {clips} clips does not divide into groups of {group}")
    same = jnp.eye(clips, dtype=jnp.bool_) if same is None else same
    same = jnp.stack([same[i : i + group, i : i + group] for i in range(0, clips, group)])
    positives = positives.reshape(-1, group, number, 1, per_clip) & same[:, :, None, :, None]
    given = queries, keys, positives.reshape(clips, number, group * per_clip)
    queries, keys, positives = (x.reshape(clips // group, -1, x.shape[-1]) for x in given)
    form = form or _form(clips * number, group * per_clip)
    found = jax.vmap(functools.partial(find, form=form))(queries, keys, positives)
    return InfoNCE(*(x.reshape(clips, number) for x in found))


def _form(queries: int, keys: int) -> str:
    return "dense" if choose_form(queries, keys) == "dense" else "chunked"


class _Sums(NamedTuple):
    """Of the similarities [M, ...] seen so far: log-sum-exp of all and of the positives, the highest of the positives
    and of the negatives."""

    every: jax.Array
    right: jax.Array
    best_right: jax.Array
    best_wrong: jax.Array


def _absorb_all(sums: _Sums, queries, keys, positives, present=None) -> _Sums:
    """Add keys [K, C] to the sums of queries; `positives` [M, K] marks positive pairs (None: there are none), and keys
    that are not `present` [K] are ignored."""
    logits = jnp.matmul(queries, keys.T, precision=jax.lax.Precision.HIGHEST)
    if present is not None:
        logits = jnp.where(present, logits, FLOOR)
    every, best = jnp.logaddexp(sums.every, jax.nn.logsumexp(logits, axis=1)), jax.lax.stop_gradient(logits)
    if positives is None:
        return sums._replace(every=every, best_wrong=jnp.maximum(sums.best_wrong, best.max(1)))
    right = jax.nn.logsumexp(jnp.where(positives, logits, FLOOR), axis=1)
    return _Sums(
        every=every,
        right=jnp.logaddexp(sums.right, right),
        best_right=jnp.maximum(sums.best_right, jnp.where(positives, best, FLOOR).max(1)),
        best_wrong=jnp.maximum(sums.best_wrong, jnp.where(positives, FLOOR, best).max(1)),
    )


def _absorb_in_tiles(sums: _Sums, queries, keys, positives) -> _Sums:
    """`_absorb_all` of one tile of keys after another."""
    given = keys, jnp.ones(len(keys), jnp.bool_), None if positives is None else positives.T

    @jax.checkpoint
    def step(sums: _Sums, tile):
        keys, present, positives = tile
        return _absorb_all(sums, queries, keys, None if positives is None else positives.T, present), None

    return jax.lax.scan(step, sums, tiles(given, KEY_TILE))[0]
