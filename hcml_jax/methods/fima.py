"""Fine-grained motion alignment (Zhu et al., FIMA): frames are compared with differences of frames, place by place.

Two clips of one video are alike (L_VV). What is seen at a place of one clip predicts, through the frames of the other,
the motion at the same place there (L_Pix); and the frames of a clip's first or second half predict the motion of that
half, and not of the other (L_Fra).
"""

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
from hcml_jax.contrastive import InfoNCE, enqueue, foreground, info_nce_of_clips, pixel_positives
from hcml_jax.methods.base import QUEUE, Encoded, Highlight, Method, Outputs, Stage, Term, Variables, everything, weigh
from hcml_jax.methods.fima_config import DIFFERENCE, FRAME, PIXEL, RGB, SIDES, SOURCES, FIMAConfig
from hcml_jax.methods.momentum import follow, key_encoder, shuffled
from hcml_jax.models import Maps, MotionAligner, TrainMode
from hcml_jax.models.layers import Train, at_least_float32
from hcml_jax.models.motion_aligner import SHARED
from hcml_jax.ops import frame_difference, unit_vectors
from hcml_jax.rng import stream

MARGIN = 0.5  # of cosines, in the triplet loss
LEAST_MATCHED = 0.1  # share of the clips with a place that the other view shows


class View(NamedTuple):
    """A clip of each video of a batch, as networks see it: normalised, augmented in training.

    Attributes:
      clip: `[B, T, H, W, 3]`, frames.
      difference: likewise, their differences.
      parts: `[B, T'', H, W, 3]`, the differences of all frames of each of T' parts of the clip; none without L_Fra.
      box: `[B, 4]`, (top, left, height, width) of what is shown, in pixels of the video.
      flip: bool `[B]`, whether it is mirrored.
    """

    clip: jax.Array
    difference: jax.Array
    parts: Sequence[jax.Array]
    box: jax.Array
    flip: jax.Array


class Keys(NamedTuple):
    """What the key encoder makes of a view, not projected: frames, their differences, and `[B, P, C]` of its parts."""

    rgb: Maps
    difference: Maps | None
    parts: jax.Array | None


class Direction(NamedTuple):
    """One view's queries and the other view's keys.

    Attributes:
      query: what the network makes of the one view.
      decoded: name of a decoder -> (of each place `[B, T', H', W', C]`, of the token `[B, T', C]`), decoded of `query`
        through what the network makes of the other view.
      key: of the other view.
      place: bool `[B, H'W', H'W']`, which places of the other view are a place of the one: see `pixel_positives`.
      foreground: (bool `[B, H'W']` of the one view, of the other).
    """

    query: Maps
    decoded: dict[str, tuple[jax.Array, jax.Array]]
    key: Keys
    place: jax.Array
    foreground: tuple[jax.Array, jax.Array]

    def decoded_for(self, name: str) -> tuple[jax.Array, jax.Array]:
        """What is decoded for the contrast of that name."""
        return self.decoded[name if name in self.decoded else SHARED]


class Forward(NamedTuple):
    """What the terms are computed of.

    Attributes:
      directions: from the first view to the second, and back.
      params, key_params: the projections of queries, and of keys.
      queues: what is compared -> `[Q, D]`, keys of earlier batches; None in validation, where the other clips of the
        batch are the negatives: queued keys are of augmented clips by other weights, which tells them apart.
      same: bool `[B, B]`, in validation: which clips of the batch are of the same video.
    """

    directions: tuple[Direction, Direction]
    params: Variables
    key_params: Variables
    queues: dict[str, jax.Array] | None
    same: jax.Array | None


@dataclasses.dataclass(frozen=True)
class FIMA(Method):
    """The method; labels are not used."""

    config: FIMAConfig
    num_classes: int = 0

    deployed = ("backbone",)
    normalisation = property(lambda self: (self.config.backbone.mean, self.config.backbone.std))
    architecture = property(lambda self: self.config.backbone.name)
    flips = property(lambda self: self.config.flip)
    attended = property(lambda self: self.config.backbone.stages[-1])

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
                chances={"top1": "chance"},
            )
            for name, weight in config.weights.items()
            if weight
        }
        if FRAME in terms and config.frame_loss != "info_nce":
            terms[FRAME] = Term(self._frame_regression, config.frame_weight, over_batch=True)
        schedule = config.stages["contrast"]
        return (Stage("contrast", schedule, everything, terms, config.reads, config.batch_norm_group),)

    def init(self, key: jax.Array, batch: Batch) -> Variables:
        """The network, and queues of random directions."""
        clip = self._normalised(augment.to_float(batch.clip[:, 0, :: self.config.stride]))
        learnt = self.network.init(stream(key, "params"), clip, False)
        queues = {
            name: {
                "keys": jax.random.normal(stream(key, f"queue/{name}"), (size, self.config.channels)),
                "next": jnp.zeros((), jnp.int32),
            }
            for name, size in self.config.queues.items()
        }
        return {**{name: learnt[name] for name in ("params", "batch_stats")}, QUEUE: queues}

    def derive(self, variables: Variables) -> Variables:
        """The key encoder begins as the encoder and its projections."""
        modules = [name for name in variables["params"] if not name.startswith("motion_decoder")]
        return {**variables, "key_encoder": key_encoder(variables, modules)}

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
        """The embedding of every `stride`-th frame."""
        backbone = {name: tree["backbone"] for name, tree in variables.items() if "backbone" in tree}
        network = self.config.build_backbone()
        clips = self._normalised(augment.to_float(clips[:, :: self.config.stride]))
        embedding, features = network.apply(backbone, clips, False)
        return Encoded({"backbone": embedding}, maps={}, flow={}, last=at_least_float32(features[network.stages[-1]]))

    def similarities(self, variables: Variables, batch: Batch) -> dict[str, jax.Array]:
        """Of places of the frames (rows) with places of their differences, averaged over time (Figure 5a)."""
        view = self._view(batch, 0, jax.random.key(0), train=False)
        maps = [self._encoded(variables, clip).map.mean(1) for clip in (view.clip, view.difference)]
        rows, columns = (unit_vectors(x.reshape(len(x), -1, x.shape[-1])) for x in maps)
        return {"frames x differences": jnp.einsum("bic,bjc->bij", rows, columns)}

    def highlights(self, variables: Variables, batch: Batch) -> dict[str, Highlight]:
        """Activation (Figures 3 and 4), the foreground (8), and where the decoder looks for its strongest place (7)."""
        one, other = (self._view(batch, number, jax.random.key(0), train=False) for number in (0, 1))
        maps = [self._encoded(variables, clip).map for clip in (one.clip, one.difference, other.clip)]
        grid, sources = maps[0].shape[2:4], dict(zip(SOURCES, maps[:2], strict=True))
        strengths = [sources[name].mean((1, 4)) for name in self.config.foreground_of]
        chosen = foreground([sources[name] for name in self.config.foreground_of], self.config.background)
        found = {f"activation, {name}": sources[name].mean((1, 4)) for name in SOURCES}
        found = {name: Highlight(0, x[:, None]) for name, x in found.items()}
        found["foreground"] = Highlight(0, chosen.reshape(-1, 1, *grid).astype(jnp.float32))
        decoder = f"motion_decoder_{(*self.network.decoders, '')[0]}"
        if decoder in variables["params"]:  # an export has the backbone alone
            place = jnp.where(chosen, sum(strengths).reshape(chosen.shape), -jnp.inf).argmax(1)
            attention = self._attention(variables, decoder, maps[0], maps[2])
            shown = jnp.take_along_axis(attention, place[:, None, None, None], axis=2)[:, :, 0]
            found["place"] = Highlight(0, jax.nn.one_hot(place, math.prod(grid)).reshape(-1, 1, *grid))
            found["place, decoded of"] = Highlight(1, shown.reshape(*shown.shape[:2], *grid))
        return found

    def _encoded(self, variables: Variables, clip: jax.Array) -> Maps:
        return self._encode(variables["params"], variables["batch_stats"], clip, mode=False)[0]

    def _attention(self, variables: Variables, decoder: str, queries: jax.Array, memory: jax.Array) -> jax.Array:
        """`[B, T', H'W', H'W']`, of each place to all of the memory, in the last layer, over all heads (D.1)."""
        options = {"method": "decode", "mutable": ["intermediates"]}
        given = {"params": variables["params"]}
        name = decoder.removeprefix("motion_decoder_")
        _, sown = self.network.apply(given, queries, memory, name, False, **options)
        layer = sown["intermediates"][decoder][f"layer{self.config.decoder.layers - 1}"]
        (weights,) = layer["attention"]["attention_weights"]
        return weights.mean(1)[:, 1:].reshape(*queries.shape[:2], *2 * weights.shape[-1:])

    # What networks see

    def _check_batch(self, batch: Batch) -> None:
        config, (clips, _, frames) = self.config, batch.clip.shape[:3]
        if config.batch_norm_group >= clips:
            raise ValueError(
                f"batch_norm_group: {config.batch_norm_group} clips are the whole batch of {clips}, and the "
                "statistics would tell which keys are of this batch; take fewer"
            )
        if PIXEL in config.compared and not config.pixel_queue and clips % config.pixel_group:
            raise ValueError(f"pixel_group: {clips} clips do not divide into groups of {config.pixel_group}")
        if frames % config.stride:
            raise ValueError(f"stride: {frames} frames that are read do not divide by {config.stride}")
        parts = self._times(frames)
        if FRAME in config.compared and config.frame_loss == "triplet" and parts < 2:
            raise ValueError("frame_loss: 'triplet' compares parts of a clip, and features stand at one time alone")
        if FRAME in config.compared and (frames % parts or frames < 2 * parts):
            raise ValueError(
                f"frame_weight: {frames} frames that are read do not divide into {parts} parts, one for each time of "
                "the backbone's features, of 2 frames or more"
            )

    def _times(self, frames: int) -> int:
        """T', the times at which the backbone's last features stand, of so many frames that are read."""
        bare, clip = self.config.backbone.bare, np.arange(frames)[None, :: self.config.stride]
        return bare.frames_of(bare.stages[-1], clip).shape[1]

    def _view(self, batch: Batch, number: int, key: jax.Array, train: bool) -> View:
        """Of the clips of that number."""
        config = self.config
        frames, consecutive = augment.to_float(batch.clip[:, number]), batch.consecutive[:, number]
        flip = jnp.zeros(len(frames), jnp.bool_)
        if train and config.flip:
            flip = augment.draw_flip(stream(key, "flip"), len(frames))
            frames = augment.flip(frames, flip)
        clip, stride = frames[:, :: config.stride], config.stride
        # A frame follows the last one shown if each one between does.
        steps = jnp.stack([consecutive[:, i : len(consecutive[0]) - stride + 1 + i] for i in range(stride)])
        difference = frame_difference(clip, first=config.first_difference, consecutive=steps.all(0)[:, ::stride])
        return View(
            clip=self._coloured(clip, stream(key, RGB), train),
            difference=self._coloured(difference, stream(key, DIFFERENCE), train),
            parts=self._parts(frames, consecutive, key, train) if FRAME in config.compared else (),
            box=batch.box[:, number],
            flip=flip,
        )

    def _parts(self, frames: jax.Array, consecutive: jax.Array, key: jax.Array, train: bool) -> list[jax.Array]:
        """The differences of each part of clips, each part with a draw of its own."""
        parts, number = [], self._times(frames.shape[1])
        for part in range(number):
            own = slice(part * frames.shape[1] // number, (part + 1) * frames.shape[1] // number)
            follows = consecutive[:, own.start : own.stop - 1]
            difference = frame_difference(frames[:, own], first=self.config.first_difference, consecutive=follows)
            parts.append(self._coloured(difference, stream(key, f"part{part}"), train))
        return parts

    def _coloured(self, clip: jax.Array, key: jax.Array, train: bool) -> jax.Array:
        """Normalised clips, of frames or differences; their colours change in training."""
        if train:
            photometric = self.config.photometric
            drawn = augment.draw_photometric(key, len(clip), photometric)
            clip = augment.change_photometry(clip, drawn, photometric)
        return self._normalised(clip)

    def _normalised(self, clip: jax.Array) -> jax.Array:
        return augment.normalise(clip, *self.normalisation)

    # What networks make of it

    @functools.cached_property
    def _encode(self):
        """(parameters, statistics, clips, mode) -> `Maps`, and the new statistics.

        A program of its own, so that what is used ten times a step is traced once or twice. (A scan over the views took
        1.65 times as long a step on a CPU.)
        """

        def encode(params: Variables, stats: Variables, clip: jax.Array, mode: Train) -> tuple[Maps, Variables]:
            given = {"params": {"backbone": params["backbone"]}, "batch_stats": stats}
            maps, changed = self.network.apply(given, clip, mode, method="encode", mutable=["batch_stats"])
            return maps, changed["batch_stats"]

        return jax.jit(encode, static_argnames="mode")

    def _encode_all(
        self, params: Variables, stats: Variables, clips: Iterable[jax.Array], mode: Train
    ) -> tuple[list[Maps], Variables]:
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
                parts = jnp.stack([back(one.embedding) for one in own], axis=1)
            found.append(Keys(maps[0], maps[1] if needs_difference else None, parts))
        return found, stats

    def _direction(
        self,
        params: Variables,
        order: tuple[int, int],
        views: Sequence[View],
        queries: Sequence[Maps],
        keys: Sequence[Keys],
        key: jax.Array,
        train: bool,
    ) -> Direction:
        """From one of the views to the other."""
        one, other = order
        decoded = {}
        for name in self.network.decoders:
            given, rngs = (queries[one].map, queries[other].map), {"dropout": stream(key, name)}
            decoded[name] = self.network.apply({"params": params}, *given, name, train, method="decode", rngs=rngs)
        grid = queries[one].map.shape[2:4]
        shown = views[one].box, views[one].flip, views[other].box, views[other].flip
        place = pixel_positives(*shown, grid, threshold=self.config.threshold)
        foregrounds = tuple(self._foreground(keys[view], side) for view, side in zip(order, SIDES, strict=True))
        return Direction(queries[one], decoded, keys[other], place, foregrounds)

    def _foreground(self, keys: Keys, side: str) -> jax.Array:
        """Which places of a view count on that side, bool `[B, H'W']`."""
        config, clips, grid = self.config, len(keys.rgb.map), keys.rgb.map.shape[2:4]
        if keys.difference is None or side not in config.foreground_on:
            return jnp.ones((clips, math.prod(grid)), jnp.bool_)
        maps = {RGB: keys.rgb.map, DIFFERENCE: keys.difference.map}
        return foreground([maps[name] for name in config.foreground_of], config.background)

    # Terms

    def _contrast(self, forward: Forward, *, name: str):
        """InfoNCE in both directions, over those queries of a clip that have a positive, and those clips that have any.

        L_VV is eq. 1, L_VD eq. 2, L_Pix eq. 5 to 8, L_Fra eq. 9 and 10.
        """
        total, sums, matched = jnp.zeros(()), {"top1": 0.0, "chance": 0.0}, []
        for direction in forward.directions:
            positives = self._positives(direction, name)
            found, chance = self._find(forward, direction, positives, name)
            counts = positives.any(2)
            per_clip, clips = counts.sum(1, dtype=jnp.float32), counts.any(1).sum(dtype=jnp.float32)
            total += jnp.sum(found.losses.sum(1) / jnp.maximum(per_clip, 1.0)) / jnp.maximum(clips, 1.0)
            sums["top1"] += jnp.sum(found.hits & counts, dtype=jnp.float32)
            sums["chance"] += jnp.sum(chance, where=counts)
            matched.append((per_clip.sum(), clips / len(counts)))
        queries, shares = (sum(numbers) for numbers in zip(*matched, strict=True))
        report = {key: value / jnp.maximum(queries, 1.0) for key, value in sums.items()}
        return total, report | ({"matched": shares / len(matched)} if name == PIXEL else {})

    def _find(
        self, forward: Forward, direction: Direction, positives: jax.Array, name: str
    ) -> tuple[InfoNCE, jax.Array]:
        """Its queries among its keys and the negatives; and by which chance guessing finds a positive `[B, M]`."""
        queries = self._projected(forward.params, self._queries(direction, name), name)
        keys = self._projected(forward.key_params, self._keys_of(direction.key, name), name)
        find = functools.partial(info_nce_of_clips, queries, keys, positives, temperature=self.config.temperature)
        right = positives.sum(2, dtype=jnp.float32)
        if forward.queues is not None and name in forward.queues:
            queue = forward.queues[name]
            return find(negatives=queue), right / (keys.shape[1] + len(queue))
        group = self.config.pixel_group if name == PIXEL and not self.config.pixel_queue else len(keys)
        return find(same=forward.same, group=group), right / (keys.shape[1] * group)

    def _queries(self, direction: Direction, name: str) -> jax.Array:
        """`[B, M, C]`, not projected."""
        match name:
            case "pixel":
                maps = direction.decoded_for(name)[0] if direction.decoded else direction.query.map
                return maps.reshape(len(maps), -1, maps.shape[-1])
            case "frame":
                return direction.decoded_for(name)[1]
        return direction.query.embedding[:, None]

    def _keys_of(self, keys: Keys, name: str) -> jax.Array:
        """`[B, K, C]`, not projected."""
        match name:
            case "pixel":
                return keys.difference.map.reshape(len(keys.difference.map), -1, keys.difference.map.shape[-1])
            case "frame":
                return keys.parts
            case "difference":
                return keys.difference.embedding[:, None]
        return keys.rgb.embedding[:, None]

    def _positives(self, direction: Direction, name: str) -> jax.Array:
        """Which keys are the positives of each query, bool `[B, M, K]`."""
        clips, times = direction.query.map.shape[:2]
        if name == PIXEL:
            one, other = direction.foreground
            place = direction.place & one[:, :, None] & other[:, None]
            at_once = jnp.eye(times, dtype=jnp.bool_)[None, :, None, :, None]
            places = times * place.shape[1]
            return (place[:, None, :, None] & at_once).reshape(clips, places, places)
        number = times if name == FRAME else 1
        return jnp.broadcast_to(jnp.eye(number, dtype=jnp.bool_), (clips, number, number))

    def _frame_regression(self, forward: Forward):
        """L_Fra without negatives of other videos (Table 9): squared distance of unit vectors, or a margin of cosines
        between a part and the others of its clip."""
        total = jnp.zeros(())
        for direction in forward.directions:
            queries = self._projected(forward.params, self._queries(direction, FRAME), FRAME)
            keys = self._projected(forward.key_params, direction.key.parts, FRAME)
            cosines = jnp.einsum("bic,bjc->bij", unit_vectors(queries), unit_vectors(keys))
            own = jnp.diagonal(cosines, axis1=1, axis2=2)
            if self.config.frame_loss == "mse":
                total += jnp.mean(2 - 2 * own)
            else:
                others = np.flatnonzero(~np.eye(own.shape[1], dtype=bool))
                apart = jnp.maximum(MARGIN + cosines - own[..., None], 0.0)
                total += apart.reshape(len(own), -1)[:, others].mean()
        return total, {}

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
