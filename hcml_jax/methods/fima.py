"""Fine-grained motion alignment (Zhu et al., FIMA): frames are compared with differences of frames, place by place.

Two clips of one video should have similar features (L_VV). The features at a place of one clip predict, by attending
to the frames of the other, the motion at the same place there (L_Pix). The frames of a clip's first or second half
predict the motion of that half, and not of the other (L_Fra).
"""

import dataclasses
import functools
import math
from collections.abc import Iterable, Sequence

import jax
import jax.numpy as jnp

from hcml_jax.batch import Batch
from hcml_jax.contrastive import activation, enqueue, foreground, pixel_positives
from hcml_jax.methods.base import QUEUE, Encoded, Highlight, Outputs, Stage, Term, Variables, everything, weigh
from hcml_jax.methods.fima_config import DECODED, DIFFERENCE, FRAME, PIXEL, RGB, SIDES, SOURCES, FIMAConfig
from hcml_jax.methods.fima_terms import Direction, FIMATerms, Forward, Keys
from hcml_jax.methods.fima_views import View, view_of
from hcml_jax.methods.momentum import MomentumContrast, follow, key_encoder, shuffled
from hcml_jax.models import MotionAligner, TrainMode
from hcml_jax.models.layers import Train
from hcml_jax.models.motion_aligner import SHARED, chosen
from hcml_jax.ops import unit_vectors
from hcml_jax.rng import stream

LEAST_MATCHED = 0.1  # share of the clips with a place that the other view shows
IN_CLIP = {"top1_in_clip": "chance_in_clip"}


@dataclasses.dataclass(frozen=True)
class FIMA(MomentumContrast):
    """The method; labels are not used."""

    config: FIMAConfig
    num_classes: int = 0
    photometric = property(lambda self: self.config.photometric)

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
    def _terms(self) -> FIMATerms:
        return FIMATerms(self.config, self.network)

    @functools.cached_property
    def stages(self) -> tuple[Stage, ...]:
        """Its only stage; its queues take whole batches."""
        config, losses = self.config, self._terms
        terms = {
            name: Term(
                functools.partial(losses.contrast, name=name),
                weight,
                over_batch=True,
                floors={"matched": LEAST_MATCHED} if name == PIXEL else {},
                chances={"top1": "chance"} | (IN_CLIP if name in DECODED else {}),
            )
            for name, weight in config.weights.items()
            if weight
        }
        if FRAME in terms and config.frame_loss != "info_nce":
            terms[FRAME] = Term(losses.frame_regression, config.frame_weight, over_batch=True, chances=IN_CLIP)
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
        views = [view_of(config, batch, number, stream(key, f"view{number}"), train) for number in (0, 1)]
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
        view = view_of(self.config, batch, 0, jax.random.key(0), train=False)
        maps = self._seen(variables, view.clip), self._seen(self._key_encoder(variables), view.difference)
        rows, columns = (unit_vectors(x.mean(1).reshape(len(x), -1, x.shape[-1])) for x in maps)
        return {"frames x differences": jnp.einsum("bic,bjc->bij", rows, columns)}

    def highlights(self, variables: Variables, batch: Batch) -> dict[str, Highlight]:
        """Activation (Figures 3 and 4), the foreground (8), its strongest place and what that attends to (7)."""
        one, other = (view_of(self.config, batch, number, jax.random.key(0), train=False) for number in (0, 1))
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

    def _check_batch(self, batch: Batch) -> None:
        config, (clips, views, frames, *image) = self.config, batch.clip.shape[:5]
        self.check_groups(clips)
        if views != 2 or batch.box is None:
            raise ValueError(f"two clips of each video are compared, and where they lie in it; found {views}")
        if PIXEL in config.compared and not config.pixel_queue and clips % config.pixel_group:
            raise ValueError(f"pixel_group: {clips} clips do not divide into groups of {config.pixel_group}")
        if frames % config.stride:
            raise ValueError(f"stride: {frames} frames that are read do not divide by {config.stride}")
        shape, strides = (frames // config.stride, *image), config.strides
        if {PIXEL, FRAME} & set(config.compared) and any(n % s for n, s in zip(shape, strides, strict=True)):
            raise ValueError(
                f"clips of {' x '.join(map(str, shape))} that are shown do not divide by the strides of the backbone's "
                f"last features, {' x '.join(map(str, strides))}: places and times would lie unevenly"
            )
        if FRAME in config.compared and frames < 2 * (parts := config.times(frames)):
            raise ValueError(f"frame_weight: {frames} frames do not give {parts} parts of 2 frames or more")
        if FRAME in config.compared and config.frame_loss == "triplet" and parts < 2:
            raise ValueError("frame_loss: 'triplet' compares parts of a clip, and features stand at one time alone")

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

    def _enqueue(self, queues: Variables, forward: Forward) -> Variables:
        """The queues with the keys of both views, after both have been compared: no clip meets a key of its own."""
        moved = {}
        for name, queue in queues.items():
            held, following = queue["keys"], queue["next"]
            for direction in forward.directions:
                keys = self._terms.keys(forward, direction, name)
                keys = keys.reshape(-1, keys.shape[-1])
                if 2 * len(keys) > len(held):
                    field = "pixel_queue" if name == PIXEL else "queue"
                    raise ValueError(f"{field}: {len(held)} keys are fewer than the {2 * len(keys)} of a batch")
                held, following = enqueue(held, following, keys)
            moved[name] = {"keys": held, "next": following}
        return moved
