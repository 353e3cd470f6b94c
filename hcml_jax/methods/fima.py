"""Fine-grained motion alignment (Zhu et al., FIMA): frames are compared with differences of frames, place by place.

Two clips of one video should have similar features (L_VV). The features at a place of one clip predict, by attending
to the frames of the other, the motion at the same place there (L_Pix). The frames of a clip's first or second half
predict the motion of that half, and not of the other (L_Fra).
"""

import collections
import dataclasses
import functools
import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hcml_jax import augment
from hcml_jax.batch import Batch
from hcml_jax.contrastive import InfoNCE, activation, enqueue, foreground, info_nce_of_clips, pixel_positives
from hcml_jax.methods.base import QUEUE, Encoded, Highlight, Outputs, Stage, Term, Variables, everything, weigh
from hcml_jax.methods.fima_config import DECODED, DIFFERENCE, FRAME, PIXEL, RGB, SIDES, SOURCES, FIMAConfig
from hcml_jax.methods.momentum import MomentumContrast, follow, key_encoder, shuffled
from hcml_jax.models import MotionAligner, TrainMode
from hcml_jax.models.layers import Train
from hcml_jax.models.motion_aligner import SHARED, chosen
from hcml_jax.ops import frame_difference, unit_vectors
from hcml_jax.rng import stream

MARGIN = 0.5  # of cosines, in the triplet loss
LEAST_MATCHED = 0.1  # share of the clips with a place that the other view shows
IN_CLIP = {"top1_in_clip": "chance_in_clip"}


class View(NamedTuple):
    """A clip of each video of a batch, as networks see it: normalised, augmented in training.

    Attributes:
      clip: `[B, T, H, W, 3]`, frames.
      difference: likewise, their differences.
      parts: T' arrays `[B, T'', H, W, 3]`: differences of all frames of each part of the clip; none without L_Fra.
      box: `[B, 4]`, (top, left, height, width) of what is shown, in pixels of the video.
      flip: bool `[B]`, whether it is mirrored.
    """

    clip: jax.Array
    difference: jax.Array
    parts: Sequence[jax.Array]
    box: jax.Array
    flip: jax.Array


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
class FIMA(MomentumContrast):
    """The method; labels are not used."""

    config: FIMAConfig
    num_classes: int = 0

    @functools.cached_property
    def network(self) -> MotionAligner:
        """The Linen module whose variables this method works on."""
        config = self.config
        return MotionAligner(
            backbone=config.build_backbone(),
            projections=(SHARED,) if config.shared_projection else config.compared,
            decoders=(SHARED,) if config.shared_decoder and config.decoded else config.decoded,
            decoder=config.decoder,
            hidden=config.hidden,
            channels=config.channels,
            dtype=jnp.dtype(config.dtype),
        )

    @functools.cached_property
    def stages(self) -> tuple[Stage, ...]:
        """Its only stage; its queues take whole batches."""
        config = self.config
        terms = {
            name: Term(
                functools.partial(self._contrast, name=name),
                weight,
                over_batch=True,
                floors={"matched": LEAST_MATCHED} if name == PIXEL else {},
                chances={"top1": "chance"} | (IN_CLIP if name in DECODED else {}),
            )
            for name, weight in config.weights.items()
            if weight
        }
        if FRAME in terms and config.frame_loss != "info_nce":
            terms[FRAME] = Term(self._frame_regression, config.frame_weight, over_batch=True, chances=IN_CLIP)
        schedule = config.stages["contrast"]
        return (Stage("contrast", schedule, everything, terms, config.reads, config.batch_norm_group),)

    def init(self, key: jax.Array, batch: Batch) -> Variables:
        """The network, and queues of random directions."""
        clip = self.normalise(batch.clip[:, 0, :: self.config.stride])
        learnt = self.learnt(self.network.init(stream(key, "params"), clip, False))
        queues = {
            name: {
                "keys": jax.random.normal(stream(key, f"queue/{name}"), (size, self.config.channels)),
                "next": jnp.zeros((), jnp.int32),
            }
            for name, size in self.config.queues.items()
        }
        return {**learnt, QUEUE: queues}

    def derive(self, variables: Variables) -> Variables:
        """The key encoder begins as the encoder and its projections."""
        return {**variables, "key_encoder": key_encoder(variables, self.network.key_modules)}

    def loss(
        self, variables: Variables, batch: Batch, key: jax.Array, stage: Stage, *, train: bool
    ) -> tuple[jax.Array, Outputs]:
        """FIMA eq. 11, each term over both directions between the two views."""
        config, mode = self.config, TrainMode(stage.trainable, stage.batch_norm_group) if train else False
        self._check_batch(batch)
        views = [self._view(batch, number, stream(key, f"view{number}"), train) for number in (0, 1)]
        params, stats, encoder = variables["params"], variables["batch_stats"], variables["key_encoder"]
        queries, stats = self._encode_all(params, stats, [view.clip for view in views], mode)
        if train:
            encoder = follow(encoder, variables, config.momentum)
        encoder = jax.lax.stop_gradient(encoder)
        keys, key_stats = self._keys(encoder, views, key, mode)
        directions = tuple(
            self._direction(params, order, views, queries, keys, stream(key, f"decoder{order[0]}"), train)
            for order in ((0, 1), (1, 0))
        )
        queues = {name: held["keys"] for name, held in variables.get(QUEUE, {}).items()} if train else None
        same = None if train else batch.index[:, None] == batch.index[None]
        forward = Forward(directions, params, encoder["params"], queues, same)
        loss, metrics = weigh(stage.terms, forward)
        if not train:
            return loss, Outputs(metrics, {})
        moved = {
            "batch_stats": stats,
            "key_encoder": {**encoder, "batch_stats": key_stats},
            QUEUE: self._enqueue(variables[QUEUE], forward),
        }
        return loss, Outputs(metrics, jax.lax.stop_gradient(moved))

    def encode(self, variables: Variables, clips: jax.Array) -> Encoded:
        """Encode every `stride`-th frame."""
        return super().encode(variables, clips[:, :: self.config.stride])

    def similarities(self, variables: Variables, batch: Batch) -> dict[str, jax.Array]:
        """Of places of the frames (rows) with places of their differences, averaged over time (Figure 5a)."""
        view = self._view(batch, 0, jax.random.key(0), train=False)
        maps = self._seen(variables, view.clip), self._seen(self._key_encoder(variables), view.difference)
        rows, columns = (unit_vectors(x.mean(1).reshape(len(x), -1, x.shape[-1])) for x in maps)
        return {"frames x differences": jnp.einsum("bic,bjc->bij", rows, columns)}

    def highlights(self, variables: Variables, batch: Batch) -> dict[str, Highlight]:
        """Activation (Figures 3 and 4), the foreground (8), its strongest place and what that attends to (7)."""
        one, other = (self._view(batch, number, jax.random.key(0), train=False) for number in (0, 1))
        encoder = self._key_encoder(variables)
        maps = {RGB: self._seen(encoder, one.clip), DIFFERENCE: self._seen(encoder, one.difference)}
        strength = activation([maps[name] for name in self.config.foreground_of or SOURCES])
        shown = foreground(strength, self.config.background)
        found = {f"activation, {name}": Highlight(0, activation([x])[:, None]) for name, x in maps.items()}
        found["foreground"] = Highlight(0, shown[:, None].astype(jnp.float32))
        if not self.network.decoders:
            return found
        queries, memory = (self._seen(variables, view.clip) for view in (one, other))
        attention = self.network.attention(variables["params"], queries, memory, PIXEL)
        if attention is not None:  # an export has the backbone alone
            clips, times, *grid = queries.shape[:4]
            strongest = jnp.where(shown, strength, -jnp.inf).reshape(clips, -1).argmax(1)
            place = jax.nn.one_hot(strongest, math.prod(grid))
            found["place"] = Highlight(0, place.reshape(clips, 1, *grid))
            looks = jnp.einsum("bi,btij->btj", place, attention)
            found["place, decoded of"] = Highlight(1, looks.reshape(clips, times, *grid))
        return found

    def _key_encoder(self, variables: Variables) -> Variables:
        """The key encoder, which alone saw differences; in an export, the backbone."""
        return variables.get("key_encoder", variables)

    def _seen(self, encoder: Variables, clip: jax.Array) -> jax.Array:
        return self._encode(encoder["params"], encoder["batch_stats"], clip, mode=False)[0]

    # What networks see

    def _check_batch(self, batch: Batch) -> None:
        config, (clips, views, frames, *image) = self.config, batch.clip.shape[:5]
        self.check_groups(clips)
        if views != 2 or batch.box is None:
            raise ValueError(f"two clips of each video are compared, and where they lie in it; found {views}")
        if PIXEL in config.compared and not config.pixel_queue and clips % config.pixel_group:
            raise ValueError(f"pixel_group: {clips} clips do not divide into groups of {config.pixel_group}")
        if frames % config.stride:
            raise ValueError(f"stride: {frames} frames that are read do not divide by {config.stride}")
        shape, strides = (frames // config.stride, *image), self._strides
        if {PIXEL, FRAME} & set(config.compared) and any(n % s for n, s in zip(shape, strides, strict=True)):
            raise ValueError(
                f"clips of {' x '.join(map(str, shape))} that are shown do not divide by the strides of the backbone's "
                f"last features, {' x '.join(map(str, strides))}: places and times would lie unevenly"
            )
        if FRAME in config.compared and frames < 2 * (parts := self._times(frames)):
            raise ValueError(f"frame_weight: {frames} frames do not give {parts} parts of 2 frames or more")
        if FRAME in config.compared and config.frame_loss == "triplet" and parts < 2:
            raise ValueError("frame_loss: 'triplet' compares parts of a clip, and features stand at one time alone")

    @property
    def _strides(self) -> tuple[int, int, int]:
        """Frames, rows and columns of the input per cell of the backbone's last features."""
        bare = self.config.backbone.bare
        return bare.feature_spec[bare.stages[-1]].strides

    def _times(self, frames: int) -> int:
        """T', the number of times of the backbone's last features, for `frames` frames read."""
        return frames // self.config.stride // self._strides[0]

    def _view(self, batch: Batch, number: int, key: jax.Array, train: bool) -> View:
        """The view of clips number `number`."""
        config = self.config
        frames, consecutive = augment.to_float(batch.clip[:, number]), batch.consecutive[:, number]
        flip = jnp.zeros(len(frames), jnp.bool_)
        if train and config.flip:
            flip = augment.draw_flip(stream(key, "flip"), len(frames))
            frames = augment.flip(frames, flip)
        clip = frames[:, :: config.stride]
        # A frame follows the previous one shown if every frame between does.
        steps = consecutive[:, : frames.shape[1] - config.stride].reshape(len(frames), -1, config.stride)
        difference = frame_difference(clip, first=config.first_difference, consecutive=steps.all(-1))
        return View(
            clip=self._coloured(clip, stream(key, RGB), train),
            difference=self._coloured(difference, stream(key, DIFFERENCE), train),
            parts=self._parts(frames, consecutive, key, train) if FRAME in config.compared else (),
            box=batch.box[:, number],
            flip=flip,
        )

    def _parts(self, frames: jax.Array, consecutive: jax.Array, key: jax.Array, train: bool) -> list[jax.Array]:
        """The differences of each part of clips, each part with draws of its own."""
        parts, number = [], self._times(frames.shape[1])
        for part in range(number):
            own = slice(part * frames.shape[1] // number, (part + 1) * frames.shape[1] // number)
            follows = consecutive[:, own.start : own.stop - 1]
            shown = frames[:, own]
            if train and (area := self.config.part_area):
                shown = augment.crop(shown, augment.draw_crop(stream(key, f"crop{part}"), len(shown), area))
            difference = frame_difference(shown, first=self.config.first_difference, consecutive=follows)
            parts.append(self._coloured(difference, stream(key, f"part{part}"), train))
        return parts

    def _coloured(self, clip: jax.Array, key: jax.Array, train: bool) -> jax.Array:
        """Normalised clips, of frames or differences; their colours change in training."""
        if train:
            photometric = self.config.photometric
            drawn = augment.draw_photometric(key, len(clip), photometric)
            clip = augment.change_photometry(clip, drawn, photometric)
        return self.normalise(clip)

    # What networks make of it

    @functools.cached_property
    def _encode(self):
        """(parameters, statistics, clips, mode) -> maps, and the new statistics.

        Jitted separately, so that a function used ten times a step is traced once or twice. (A scan over the views made
        a step 1.65 times as long on a CPU.)
        """

        def encode(params: Variables, stats: Variables, clip: jax.Array, mode: Train) -> tuple[jax.Array, Variables]:
            given = {"params": {"backbone": params["backbone"]}, "batch_stats": stats}
            maps, changed = self.network.apply(given, clip, mode, method="encode", mutable=["batch_stats"])
            return maps, changed["batch_stats"]

        return jax.jit(encode, static_argnames="mode")

    def _encode_all(
        self, params: Variables, stats: Variables, clips: Iterable[jax.Array], mode: Train
    ) -> tuple[list[jax.Array], Variables]:
        """The maps of each of several batches of clips, one after the other; and the new statistics."""
        found = []
        for clip in clips:
            maps, stats = self._encode(params, stats, clip, mode=mode)
            found.append(maps)
        return found, stats

    def _keys(
        self, encoder: Variables, views: Sequence[View], key: jax.Array, mode: Train
    ) -> tuple[list[Keys], Variables]:
        """What the key encoder makes of both views, and its new statistics."""
        config, stats, found = self.config, encoder["batch_stats"], []
        needs_difference = {DIFFERENCE, PIXEL} & set(config.compared)
        for number, view in enumerate(views):
            into, back = shuffled(stream(key, f"shuffle{number}"), len(view.clip))
            seen = [view.clip, *([view.difference] if needs_difference else [])]
            maps, stats = self._encode_all(encoder["params"], stats, map(into, seen), mode)
            maps, parts = back(maps), None
            if FRAME in config.compared:
                own, stats = self._encode_all(encoder["params"], stats, map(into, view.parts), mode)
                parts = jnp.stack([back(one).mean((1, 2, 3)) for one in own], axis=1)
            found.append(Keys(maps[0], maps[1] if needs_difference else None, parts))
        return found, stats

    def _direction(
        self,
        params: Variables,
        order: tuple[int, int],
        views: Sequence[View],
        queries: Sequence[jax.Array],
        keys: Sequence[Keys],
        key: jax.Array,
        train: bool,
    ) -> Direction:
        """From one of the views to the other."""
        one, other = order
        by_decoder = {}
        for name in self.network.decoders:
            given, rngs = (queries[one], queries[other]), {"dropout": stream(key, name)}
            by_decoder[name] = self.network.apply({"params": params}, *given, name, train, method="decode", rngs=rngs)
        decoded = {name: by_decoder[chosen(name, self.network.decoders)] for name in self.config.decoded}
        grid = queries[one].shape[2:4]
        shown = views[one].box, views[one].flip, views[other].box, views[other].flip
        same_place = pixel_positives(*shown, grid, threshold=self.config.threshold)
        foregrounds = tuple(self._foreground(keys[view], side) for view, side in zip(order, SIDES, strict=True))
        return Direction(queries[one], decoded, keys[other], same_place, foregrounds)

    def _foreground(self, keys: Keys, side: str) -> jax.Array:
        """Which places of a view count on that side, bool `[B, H'W']`."""
        clips, grid = len(keys.rgb), keys.rgb.shape[2:4]
        if keys.difference is None or side not in self.config.foreground_on:
            return jnp.ones((clips, math.prod(grid)), jnp.bool_)
        maps = {RGB: keys.rgb, DIFFERENCE: keys.difference}
        strength = activation([maps[name] for name in self.config.foreground_of])
        return foreground(strength, self.config.background).reshape(clips, -1)

    # Terms

    def _contrast(self, forward: Forward, *, name: str):
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
        return queries, self._projected(forward.key_params, self._keys_of(direction.key, name), name)

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

    def _frame_regression(self, forward: Forward):
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

    def _enqueue(self, queues: Variables, forward: Forward) -> Variables:
        """The queues with the keys of both views, after both have been compared: no clip meets a key of its own."""
        moved = {}
        for name, queue in queues.items():
            held, following = queue["keys"], queue["next"]
            for direction in forward.directions:
                keys = self._projected(forward.key_params, self._keys_of(direction.key, name), name)
                keys = keys.reshape(-1, keys.shape[-1])
                if 2 * len(keys) > len(held):
                    field = "pixel_queue" if name == PIXEL else "queue"
                    raise ValueError(f"{field}: {len(held)} keys are fewer than the {2 * len(keys)} of a batch")
                held, following = enqueue(held, following, keys)
            moved[name] = {"keys": held, "next": following}
        return moved


def _rows(maps: jax.Array) -> jax.Array:
    """Maps `[B, T', H', W', C]` as `[B, T'H'W', C]`."""
    return maps.reshape(len(maps), -1, maps.shape[-1])
