"""InfoNCE with cosine similarity: one loss, in three forms that differ in memory and communication alone."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from hcml_jax.contrastive.streaming import FLOOR, Keys, Queries, Ring, streamed_cross_entropy
from hcml_jax.ops.check import check_equal, checked
from hcml_jax.ops.normalise import unit_vectors

FORMS = ("dense", "chunked", "ring")

# Number of similarities that a device may hold at once: in float32, 512 MiB with those of their gradient.
DENSE_LIMIT = 2**26


class InfoNCE(NamedTuple):
    """Losses and hits of the queries.

    Attributes:
      losses: float32, one for each query.
      hits: bool, whether the positive is more similar than every negative. A tie is a miss:
        otherwise collapsed features would be hits.
    """

    losses: jax.Array
    hits: jax.Array


def choose_form(num_queries: int, num_keys: int, mesh=None) -> str:
    """Choose the form for the numbers of queries and keys: "dense" while each device's rows of similarities fit in
    256 MiB; above that, "ring" on several devices, "chunked" on one."""
    devices = _ring_size(_given_or_set(mesh))
    if num_queries * num_keys <= DENSE_LIMIT * devices:
        return "dense"
    divides = num_queries % devices == 0 and num_keys % devices == 0
    return "ring" if devices > 1 and divides else "chunked"


def info_nce(queries, keys, positives, *, temperature, form: str = "dense", mesh=None, owners=None) -> jax.Array:
    """Cross-entropy of finding each query's positive among all keys (HCML, equation 3).

    -log( exp(cos(q_i, k_p(i)) / tau) / sum_j exp(cos(q_i, k_j) / tau) ), one loss for each query;
    HCML sums them, this library takes their mean.

    Args:
      queries: [M, C], floating.
      keys: [K, C], floating.
      positives: [M], integers in [0, K): the row of `keys` that is the positive of each query. One
        that is K or more gives a loss of NaN.
      temperature: tau, above 0; it may be traced, and learnt.
      form: all give the same losses and gradients; `choose_form` chooses.
        "dense" holds the M x K similarities. It is written on global arrays: under jit, with queries and
        keys sharded over devices, XLA gathers all keys on every device.
        "chunked" streams the keys past the queries in tiles and recomputes the similarities for the
        gradient: memory grows with M + K. On several devices, each still holds all keys.
        "ring" passes blocks of keys round the devices of `mesh`: each holds two blocks, never all keys.
      mesh: for "ring": M and K are split over its first axis. None: the mesh of `jax.set_mesh`.
      owners: ([M], [K]), integers, or None. Pairs with equal owners are excluded from the negatives; the
        positive is kept whatever its owner.

    Returns:
      float32 [M], at least 0; log K where all keys are alike. All maths is in float32.

    Raises:
      ValueError: the shapes do not fit, an unknown form, a temperature that is not above 0, or queries or
        keys that do not divide over the mesh.
    """
    return info_nce_and_hits(
        queries, keys, positives, temperature=temperature, form=form, mesh=mesh, owners=owners
    ).losses


def info_nce_and_hits(queries, keys, positives, *, temperature, form: str = "dense", mesh=None, owners=None) -> InfoNCE:
    """`info_nce` and, from the same similarities, whether each query finds its positive."""
    if form not in FORMS:
        raise ValueError(f"form: expected one of {', '.join(FORMS)}, found {form!r}")
    if not isinstance(temperature, jax.Array) and temperature <= 0:
        raise ValueError(f"temperature: expected a number above 0, found {temperature}")
    queries, keys = checked("queries", queries, "M C"), checked("keys", keys, "K C")
    positives = checked("positives", positives, "M", jnp.integer)
    check_equal("keys: channels of queries", keys.shape[1], queries.shape[1])
    check_equal("positives: number of queries", positives.shape, queries.shape[:1])
    query_owners, key_owners = _check_owners(owners, len(queries), len(keys))
    queries = Queries(unit_vectors(queries) / temperature, positives, query_owners)
    keys = Keys(unit_vectors(keys), key_owners)
    if form == "dense":
        return InfoNCE(*dense_cross_entropy(queries, keys))
    if form == "chunked":
        return InfoNCE(*streamed_cross_entropy(Ring(), queries, keys))
    return InfoNCE(*_round_the_mesh(queries, keys, _given_or_set(mesh)))


def dense_cross_entropy(queries: Queries, keys: Keys) -> tuple[jax.Array, jax.Array]:
    """What `streamed_cross_entropy` computes on one device, with all similarities at once."""
    # The default would round to bfloat16 on TPU: an error of 0.05 once divided by tau = 0.07.
    logits = jnp.matmul(queries.vectors, keys.vectors.T, precision=jax.lax.Precision.HIGHEST)
    same_owner = queries.owners[:, None] == keys.owners
    others = jnp.arange(len(keys.owners)) != queries.positives[:, None]
    logits = jnp.where(same_owner & others, FLOOR, logits)
    positive = jnp.take_along_axis(logits, queries.positives[:, None], axis=1)
    losses = jax.nn.logsumexp(logits, axis=1) - positive[:, 0]
    at_least = jnp.sum(logits >= positive, axis=1)  # the positive itself is one of them
    return losses, at_least == 1


def _round_the_mesh(queries: Queries, keys: Keys, mesh) -> tuple[jax.Array, jax.Array]:
    if mesh.empty:
        raise ValueError("mesh: the form 'ring' needs one, given or set by jax.set_mesh")
    axis, size = mesh.axis_names[0], _ring_size(mesh)
    for name, rows in (("queries", len(queries.vectors)), ("keys", len(keys.vectors))):
        if rows % size:
            raise ValueError(f"{name}: {rows} do not divide over the {size} devices of {axis!r}")
    local = functools.partial(streamed_cross_entropy, Ring(axis, size))
    # The loop carry starts as constants, equal on every device, and then varies over devices.
    ring = jax.shard_map(local, mesh=mesh, in_specs=(P(axis), P(axis)), out_specs=P(axis), check_vma=False)
    return ring(queries, keys)


def _ring_size(mesh) -> int:
    """Devices along the first axis of a mesh; 1 of an empty one."""
    return 1 if mesh.empty else mesh.shape[mesh.axis_names[0]]


def _given_or_set(mesh):
    """`mesh`, or the one of `jax.set_mesh`; empty if there is neither."""
    if mesh is None:
        return jax.sharding.get_abstract_mesh()
    # `jax.make_mesh` makes explicit axes, along which jax would not split arrays by itself.
    auto = (jax.sharding.AxisType.Auto,) * len(mesh.axis_names)
    return mesh.update(axis_types=auto)


def _check_owners(owners, num_queries: int, num_keys: int) -> tuple[jax.Array, jax.Array]:
    """Owners as arrays; for None, values that exclude no pair."""
    if owners is None:
        return jnp.zeros(num_queries, jnp.int32), jnp.ones(num_keys, jnp.int32)
    of_queries, of_keys = (checked("owners", x, "N", jnp.integer) for x in owners)
    check_equal("owners: numbers of queries and keys", (len(of_queries), len(of_keys)), (num_queries, num_keys))
    return of_queries, of_keys
