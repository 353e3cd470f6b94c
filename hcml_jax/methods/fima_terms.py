"""FIMA's losses: what is compared in a direction, and how."""

import collections
import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hcml_jax.contrastive import InfoNCE, info_nce_of_clips
from hcml_jax.methods.base import Variables
from hcml_jax.methods.fima_config import DECODED, DIFFERENCE, FRAME, PIXEL, FIMAConfig
from hcml_jax.models import MotionAligner
from hcml_jax.ops import unit_vectors

MARGIN = 0.5  # of cosines, in the triplet loss


class Keys(NamedTuple):
    """What the key encoder makes of a view, not projected; None where no term needs it.

    Attributes:
      rgb, difference: `[B, T', H', W', C]`, of frames and of their differences.
      parts: `[B, T', C]`, of its parts, pooled.
    """

    rgb: jax.Array
    difference: jax.Array | None
    parts: jax.Array | None


class Direction(NamedTuple):
    """One view's queries and the other view's keys.

    Attributes:
      query: `[B, T', H', W', C]`, the network's maps of the one view.
      decoded: contrast -> (places `[B, T', H', W', C]`, token `[B, T', C]`), decoded from `query` by attending to the
        network's maps of the other view.
      key: keys of the other view.
      same_place: bool `[B, H'W', H'W']`, which places of the two views are the same: see `pixel_positives`.
      foreground: (mask of the one view, mask of the other), each bool `[B, H'W']`.
    """

    query: jax.Array
    decoded: dict[str, tuple[jax.Array, jax.Array]]
    key: Keys
    same_place: jax.Array
    foreground: tuple[jax.Array, jax.Array]


class Forward(NamedTuple):
    """Inputs of the loss terms.

    Attributes:
      directions: from the first view to the second, and back.
      params, key_params: parameters that project queries, and keys.
      queues: contrast -> `[Q, D]`, keys of earlier batches; None in validation, where the other clips of the batch are
        the negatives: queued keys come from augmented clips and other weights, which would give them away.
      same: bool `[B, B]`, in validation: which clips of the batch are of the same video.
    """

    directions: tuple[Direction, Direction]
    params: Variables
    key_params: Variables
    queues: dict[str, jax.Array] | None
    same: jax.Array | None


@dataclasses.dataclass(frozen=True)
class FIMATerms:
    """The terms of FIMA's loss, each a function of `Forward`."""

    config: FIMAConfig
    network: MotionAligner

    def contrast(self, forward: Forward, *, name: str):
        """InfoNCE in both directions, over those queries of a clip that have a positive, and those clips that have any.

        L_VV is eq. 1, L_VD eq. 2, L_Pix eq. 5 to 8, L_Fra eq. 9 and 10.
        """
        total, sums, matched = jnp.zeros(()), collections.Counter(), []
        for direction in forward.directions:
            positives = self._positives(direction, name)
            queries, keys = self._projections(forward, direction, name)
            found, chance = self._find(forward, queries, keys, positives, name)
            counts = positives.any(2)
            per_clip, clips = counts.sum(1, dtype=jnp.float32), counts.any(1).sum(dtype=jnp.float32)
            total += jnp.sum(found.losses.sum(1) / jnp.maximum(per_clip, 1.0)) / jnp.maximum(clips, 1.0)
            sums["top1"] += jnp.sum(found.hits & counts, dtype=jnp.float32)
            sums["chance"] += jnp.sum(chance, where=counts)
            if name in DECODED:  # of the others a clip has one key
                sums.update(self._in_clip(queries, keys, positives))
            matched.append((per_clip.sum(), clips / len(counts)))
        number, shares = (sum(numbers) for numbers in zip(*matched, strict=True))
        report = {key: value / jnp.maximum(number, 1.0) for key, value in sums.items()}
        return total, report | ({"matched": shares / len(matched)} if name == PIXEL else {})

    def _find(
        self, forward: Forward, queries: jax.Array, keys: jax.Array, positives: jax.Array, name: str
    ) -> tuple[InfoNCE, jax.Array]:
        """InfoNCE of queries among keys and negatives; and the chance of guessing a positive `[B, M]`."""
        find = functools.partial(info_nce_of_clips, queries, keys, positives, temperature=self.config.temperature)
        right = positives.sum(2, dtype=jnp.float32)
        if forward.queues is not None and name in forward.queues:
            queue = forward.queues[name]
            return find(negatives=queue), right / (keys.shape[1] + len(queue))
        if forward.same is not None:
            alike = forward.same.sum(1, dtype=jnp.float32)[:, None]
            return find(same=forward.same), right * alike / (keys.shape[1] * len(keys))
        group = self.config.pixel_group  # of L_Pix: the others have queues
        return find(group=group), right / (keys.shape[1] * group)

    def _in_clip(self, queries: jax.Array, keys: jax.Array, positives: jax.Array) -> dict[str, jax.Array]:
        """Number of queries that find a positive among the keys of their own clip, and the number expected by chance.

        Among all keys, a query may find its clip but only guess the place or the part in it.
        """
        given, counts = jax.lax.stop_gradient((queries, keys)), positives.any(2)
        found = info_nce_of_clips(*given, positives, temperature=self.config.temperature, group=1)
        shares = positives.mean(2, dtype=jnp.float32)
        return {
            "top1_in_clip": jnp.sum(found.hits & counts, dtype=jnp.float32),
            "chance_in_clip": jnp.sum(shares, where=counts),
        }

    def _projections(self, forward: Forward, direction: Direction, name: str) -> tuple[jax.Array, jax.Array]:
        """The queries `[B, M, D]` of a direction, and its keys `[B, K, D]`."""
        queries = self._projected(forward.params, self._queries(direction, name), name)
        return queries, self.keys(forward, direction, name)

    def keys(self, forward: Forward, direction: Direction, name: str) -> jax.Array:
        """The keys `[B, K, D]` of a direction."""
        return self._projected(forward.key_params, self._keys_of(direction.key, name), name)

    def _queries(self, direction: Direction, name: str) -> jax.Array:
        """`[B, M, C]`, not projected."""
        if name == FRAME:
            return direction.decoded[name][1]
        if name == PIXEL:
            return _rows(direction.decoded[name][0] if direction.decoded else direction.query)
        return direction.query.mean((1, 2, 3))[:, None]

    def _keys_of(self, keys: Keys, name: str) -> jax.Array:
        """`[B, K, C]`, not projected."""
        if name == FRAME:
            return keys.parts
        if name == PIXEL:
            return _rows(keys.difference)
        return (keys.difference if name == DIFFERENCE else keys.rgb).mean((1, 2, 3))[:, None]

    def _positives(self, direction: Direction, name: str) -> jax.Array:
        """Which keys are the positives of each query, bool `[B, M, K]`."""
        clips, times = direction.query.shape[:2]
        if name != PIXEL:
            number = times if name == FRAME else 1
            return jnp.broadcast_to(jnp.eye(number, dtype=jnp.bool_), (clips, number, number))
        source, target = direction.foreground
        same_place = direction.same_place & source[:, :, None] & target[:, None]
        same_time = jnp.eye(times, dtype=jnp.bool_)[None, :, None, :, None]
        places = times * same_place.shape[1]
        return (same_place[:, None, :, None] & same_time).reshape(clips, places, places)

    def frame_regression(self, forward: Forward):
        """L_Fra without negatives of other videos (Table 9): squared distance of unit vectors, or a margin of cosines
        between a part and the others of its clip."""
        total, sums = jnp.zeros(()), collections.Counter()
        for direction in forward.directions:
            queries, keys = self._projections(forward, direction, FRAME)
            sums.update(self._in_clip(queries, keys, self._positives(direction, FRAME)))
            cosines = jnp.einsum("bic,bjc->bij", unit_vectors(queries), unit_vectors(keys))
            own = jnp.diagonal(cosines, axis1=1, axis2=2)
            if self.config.frame_loss == "mse":
                total += jnp.mean(2 - 2 * own)
            else:
                others = np.flatnonzero(~np.eye(own.shape[1], dtype=bool))
                apart = jnp.maximum(MARGIN + cosines - own[..., None], 0.0)
                total += apart.reshape(len(own), -1)[:, others].mean()
        number = len(forward.directions) * own.size
        return total, {key: value / number for key, value in sums.items()}

    def _projected(self, params: Variables, x: jax.Array, name: str) -> jax.Array:
        return self.network.apply({"params": params}, x, name, method="project")


def _rows(maps: jax.Array) -> jax.Array:
    """Maps `[B, T', H', W', C]` as `[B, T'H'W', C]`."""
    return maps.reshape(len(maps), -1, maps.shape[-1])
