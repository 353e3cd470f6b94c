"""Fine-grained motion alignment (Zhu et al., FIMA): frames are compared with differences of frames, place by place.

Two clips of one video are alike (L_VV). What is seen at a place of one clip predicts, through the frames of the other,
the motion at the same place there (L_Pix); and the frames of a clip's first or second half predict the motion of that
half, and not of the other (L_Fra).
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hcml_jax import augment
from hcml_jax.augment import PhotometricConfig
from hcml_jax.batch import Batch, Reads
from hcml_jax.config import ConfigError, nearest
from hcml_jax.contrastive import InfoNCE, enqueue, info_nce_of_clips
from hcml_jax.methods.base import (
    QUEUE,
    Encoded,
    Method,
    Outputs,
    Schedule,
    Stage,
    Term,
    Variables,
    check_dtype,
    everything,
    weigh,
)
from hcml_jax.methods.momentum import follow, key_encoder, shuffled
from hcml_jax.models import Backbone, BackboneConfig, Maps, MotionAligner, MotionDecoderConfig, TrainMode
from hcml_jax.models.layers import Train, at_least_float32
from hcml_jax.models.motion_aligner import SHARED
from hcml_jax.ops import cell_centres, cell_diagonals, frame_difference, unit_vectors
from hcml_jax.ops.frame_difference import FIRSTS
from hcml_jax.rng import stream

# What is compared; each may have a projection, a decoder and a queue of its own.
INSTANCE, DIFFERENCE, PIXEL, FRAME = "instance", "difference", "pixel", "frame"
DECODED = (PIXEL, FRAME)

RGB = "rgb"
SOURCES = (RGB, DIFFERENCE)  # of activation
PREDICTION, TARGET = "prediction", "target"
SIDES = (PREDICTION, TARGET)
FRAME_LOSSES = ("info_nce", "triplet", "mse")
MARGIN = 0.5  # of cosines, in the triplet loss

LEAST = {"stride": 1, "hidden": 1, "channels": 1, "queue": 1, "pixel_queue": 0, "pixel_group": 1, "min_offset": 0}
LEAST_MATCHED = 0.1  # share of the clips with a place that the other view shows


@dataclasses.dataclass(frozen=True)
class FIMAConfig:
    """Fields of the method "fima"; defaults are the paper's on UCF-101, or decided where it is silent.

    Attributes:
      stages: {"contrast": its schedule}.
      backbone: which backbone.
      motion_blocks: the stages of it after which a motion block stands (HCML's; FIMA has none).
      stride: every so many-th frame that is read makes the clip; halves of it, for L_Fra, have all of theirs.
      hidden, channels: of the projections, whose outcome is compared.
      shared_projection: whether all losses compare by the same projection; otherwise each has its own.
      decoder: sizes of the motion decoder; 0 layers: places are compared as they are (Table 2).
      shared_decoder: whether L_Pix and L_Fra share one (Table 8).
      instance_weight, pixel_weight, frame_weight: of L_VV, L_Pix and L_Fra (eq. 11); 0 leaves a term out.
      difference_weight: of L_VD (eq. 2), the baseline of Table 1.
      frame_loss: how L_Fra compares: "info_nce" (eq. 10), "triplet" or "mse" (Table 9).
      temperature: tau.
      queue: keys of earlier batches, of each of L_VV, L_VD and L_Fra.
      pixel_queue: places of earlier batches, for L_Pix; 0: negatives are the places of other videos of the batch.
      pixel_group: without a `pixel_queue`: clips of the batch, one after the other, among which these are (the paper's
        are those of a GPU); it divides the batch.
      momentum: what a step keeps of the key encoder.
      batch_norm_group: clips over which batch statistics are taken, fewer than the batch.
      threshold: how near places of both views must be to be the same, in diagonals of the larger cells.
      background: beta, the share of a map's places, those of least activation, that are no foreground (eq. 6).
      foreground_of: what activation is of: "rgb", "difference" (Table 3e).
      foreground_on: where the background is left out: on the side of the "prediction", of the "target" (Table 3f).
      first_difference: of `frame_difference`.
      area: (least, most) share of the frame that a clip shows: see `Reads`.
      min_offset, max_offset: least and most frames of the video between the starts of both clips: see `Reads`.
      photometric: of the frames, and, drawn anew, of their differences.
      flip: whether clips are mirrored at random (a flip changes labels such as "left").
      dtype: what convolutions and decoders compute in, "float32" or "bfloat16".
    """

    stages: dict[str, Schedule]
    backbone: BackboneConfig = BackboneConfig("r2plus1d_18")
    motion_blocks: tuple[str, ...] = ()
    stride: int = 2
    hidden: int = 1024
    channels: int = 128
    shared_projection: bool = True
    decoder: MotionDecoderConfig = MotionDecoderConfig()
    shared_decoder: bool = True
    instance_weight: float = 1.0
    difference_weight: float = 0.0
    pixel_weight: float = 1.0
    frame_weight: float = 1.0
    frame_loss: str = "info_nce"
    temperature: float = 0.1
    queue: int = 2048
    pixel_queue: int = 0
    pixel_group: int = 8
    momentum: float = 0.999
    batch_norm_group: int = 8
    threshold: float = 0.7
    background: float = 0.5
    foreground_of: tuple[str, ...] = SOURCES
    foreground_on: tuple[str, ...] = SIDES
    first_difference: str = "repeat"
    area: tuple[float, float] = (0.2, 1.0)
    min_offset: int = 1
    max_offset: int | None = None
    photometric: PhotometricConfig = PhotometricConfig(jitter=0.2, blur=0.2)
    flip: bool = True
    dtype: str = "float32"

    def __post_init__(self):
        check_dtype(self.dtype)
        if set(self.stages) != {"contrast"}:
            raise ConfigError(f"stages must be exactly 'contrast', not {sorted(self.stages)}")
        for stage in self.motion_blocks:
            if stage not in self.backbone.stages:
                raise ConfigError(
                    f"motion_blocks: no stage is called {stage!r}. {nearest(stage, self.backbone.stages)}"
                )
        if min(self.weights.values()) < 0 or not any(self.weights.values()):
            fields = ", ".join(f"{name}_weight" for name in self.weights)
            raise ConfigError(f"{fields} must be 0 or more, one of them above 0; found {[*self.weights.values()]}")
        if self.frame_weight and not self.decoder.layers:
            raise ConfigError("frame_weight: L_Fra needs a motion decoder; set decoder.layers, or frame_weight=0")
        self._check_numbers()
        self._check_choices()

    def _check_numbers(self):
        for name, least in LEAST.items():
            if getattr(self, name) < least:
                raise ConfigError(f"{name} must be {least} or more, not {getattr(self, name)}")
        for name in ("temperature", "threshold"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"{name} must be above 0, not {getattr(self, name)}")
        if not 0 < self.momentum <= 1:
            raise ConfigError(f"momentum must be above 0 and at most 1, not {self.momentum}")
        if not 0 <= self.background < 1:
            raise ConfigError(f"background must be from 0 up and below 1, not {self.background}")
        if self.batch_norm_group < 1:
            raise ConfigError(f"batch_norm_group must be 1 or more, not {self.batch_norm_group}")
        try:
            self.reads  # noqa: B018
        except ValueError as error:
            raise ConfigError(f"area, min_offset, max_offset: {error}") from error

    def _check_choices(self):
        for name, known in (("first_difference", FIRSTS), ("frame_loss", FRAME_LOSSES)):
            if (value := getattr(self, name)) not in known:
                raise ConfigError(f"{name}: there is no {value!r}. {nearest(value, known)}")
        for name, known in (("foreground_of", SOURCES), ("foreground_on", SIDES)):
            for value in getattr(self, name):
                if value not in known:
                    raise ConfigError(f"{name}: there is no {value!r}. {nearest(value, known)}")
        if self.foreground_on and not self.foreground_of:
            raise ConfigError("foreground_of must name 'rgb', 'difference' or both; for no foreground, foreground_on=()")

    @property
    def weights(self) -> dict[str, float]:
        """What is compared -> its weight."""
        return {name: getattr(self, f"{name}_weight") for name in (INSTANCE, DIFFERENCE, PIXEL, FRAME)}

    @property
    def compared(self) -> tuple[str, ...]:
        """What any term compares."""
        return tuple(name for name, weight in self.weights.items() if weight)

    @property
    def decoded(self) -> tuple[str, ...]:
        """What is compared as a motion decoder gives it."""
        return tuple(name for name in self.compared if name in DECODED) if self.decoder.layers else ()

    @property
    def queues(self) -> dict[str, int]:
        """What is compared with keys of earlier batches -> with how many."""
        sizes = {name: self.queue for name in self.compared if name != PIXEL}
        if self.frame_loss != "info_nce":
            sizes.pop(FRAME, None)
        return sizes | ({PIXEL: self.pixel_queue} if self.pixel_weight and self.pixel_queue else {})

    @property
    def reads(self) -> Reads:
        """Two clips of each video."""
        return Reads(clips=2, area=self.area, min_offset=self.min_offset, max_offset=self.max_offset)

    def build_backbone(self) -> Backbone:
        """The module of the backbone."""
        return self.backbone.build(motion_blocks=self.motion_blocks, dtype=jnp.dtype(self.dtype))


class View(NamedTuple):
    """A clip of each video of a batch, as networks see it: normalised, augmented in training.

    Attributes:
      clip: `[B, T, H, W, 3]`, frames.
      difference: likewise, their differences.
      parts: `[P, B, T'', H, W, 3]`, the differences of every frame of each of P parts of the clip.
      box: `[B, 4]`, (top, left, height, width) of what is shown, in pixels of the video.
      flip: bool `[B]`, whether it is mirrored.
    """

    clip: jax.Array
    difference: jax.Array
    parts: jax.Array
    box: jax.Array
    flip: jax.Array


class Keys(NamedTuple):
    """What the key encoder makes of a view, not projected: frames, their differences, and `[B, P, C]` of its parts."""

    rgb: Maps
    difference: Maps | None
    parts: jax.Array | None


class Direction(NamedTuple):
    """The first view's queries and the second view's keys; each view is the first once.

    Attributes:
      query: `Maps` of the first view by the network.
      decoded: what is compared -> (of each place `[B, T', H', W', C]`, of the token `[B, T', C]`), decoded of `query`
        through the second view's frames.
      key: of the second view.
      place: bool `[B, H'W', H'W']`, which places of the second view are a place of the first; see `pixel_positives`.
      foreground: (bool `[B, H'W']` of the first view, of the second).
    """

    query: Maps
    decoded: dict[str, tuple[jax.Array, jax.Array]]
    key: Keys
    place: jax.Array
    foreground: tuple[jax.Array, jax.Array]


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
        computes = {
            INSTANCE: self._instance_contrast,
            DIFFERENCE: self._difference_contrast,
            PIXEL: self._pixel_contrast,
            FRAME: self._frame_contrast if config.frame_loss == "info_nce" else self._frame_regression,
        }
        terms = {
            name: Term(
                computes[name],
                weight,
                over_batch=True,
                floors={"matched": LEAST_MATCHED} if name == PIXEL else {},
                chances={} if name == FRAME and config.frame_loss != "info_nce" else {"top1": "chance"},
            )
            for name, weight in config.weights.items()
            if weight
        }
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
        queries, stats = self._encode(params, stats, jnp.stack([view.clip for view in views]), mode)
        if train:
            encoder = follow(encoder, variables, config.momentum)
        keys, key_stats = self._keys(encoder, views, key, mode)
        directions = tuple(
            self._direction(params, views, queries, keys, order, stream(key, f"decoder{order[0]}"), train)
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

    # What networks see

    def _check_batch(self, batch: Batch) -> None:
        config, (clips, _, frames) = self.config, batch.clip.shape[:3]
        if config.batch_norm_group >= clips:
            raise ValueError(
                f"batch_norm_group: {config.batch_norm_group} clips are the whole batch of {clips}, and the "
                "statistics would tell which keys are of this batch; take fewer"
            )
        if PIXEL in config.compared and not config.pixel_queue and clips % config.pixel_group:
            raise ValueError(f"pixel_group: a batch of {clips} clips does not divide into groups of {config.pixel_group}")
        if frames % config.stride:
            raise ValueError(f"stride: {frames} frames that are read do not divide by {config.stride}")
        parts = self._times(frames)
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
            parts=self._parts(frames, consecutive, key, train),
            box=batch.box[:, number],
            flip=flip,
        )

    def _parts(self, frames: jax.Array, consecutive: jax.Array, key: jax.Array, train: bool) -> jax.Array:
        """The differences of each part of clips, each part with a draw of its own."""
        number, size = self._times(frames.shape[1]), frames.shape[1] // self._times(frames.shape[1])
        parts = []
        for part in range(number):
            own = slice(part * size, (part + 1) * size)
            follows = consecutive[:, own.start : own.stop - 1]
            difference = frame_difference(frames[:, own], first=self.config.first_difference, consecutive=follows)
            parts.append(self._coloured(difference, stream(key, f"part{part}"), train))
        return jnp.stack(parts)

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

    def _encode(
        self, params: Variables, stats: Variables, clips: jax.Array, mode: Train
    ) -> tuple[list[Maps], Variables]:
        """The maps of each of N batches of clips `[N, B, T, H, W, 3]`, one after the other; and the new statistics."""
        maps = []
        for number in range(len(clips)):
            given = {"params": params, "batch_stats": stats}
            found, changed = self.network.apply(given, clips[number], mode, method="encode", mutable=["batch_stats"])
            maps, stats = [*maps, found], changed["batch_stats"]
        return maps, stats

    def _keys(
        self, encoder: Variables, views: Sequence[View], key: jax.Array, mode: Train
    ) -> tuple[list[Keys], Variables]:
        """What the key encoder makes of both views, and its new statistics."""
        config, stats, found = self.config, encoder["batch_stats"], []
        needs_difference = {DIFFERENCE, PIXEL} & set(config.compared)
        for number, view in enumerate(views):
            into, back = shuffled(stream(key, f"shuffle{number}"), len(view.clip))
            seen = [view.clip, *([view.difference] if needs_difference else [])]
            maps, stats = self._encode(encoder["params"], stats, [into(clip) for clip in seen], mode)
            maps, parts = back(maps), None
            if FRAME in config.compared:
                own, stats = self._encode(encoder["params"], stats, [into(part) for part in view.parts], mode)
                parts = jnp.stack([back(one.embedding) for one in own], axis=1)
            found.append(Keys(maps[0], maps[1] if needs_difference else None, parts))
        return jax.lax.stop_gradient(found), stats

    def _direction(
        self,
        params: Variables,
        views: Sequence[View],
        queries: Sequence[Maps],
        keys: Sequence[Keys],
        order: tuple[int, int],
        key: jax.Array,
        train: bool,
    ) -> Direction:
        """From one view to the other."""
        config, (one, other) = self.config, order
        decoded, names = {}, config.decoded[:1] if config.shared_decoder else config.decoded
        for name in names:
            given, rngs = {"params": params}, {"dropout": stream(key, name)}
            maps = queries[one].map, queries[other].map
            decoded[name] = self.network.apply(given, *maps, name, train, method="decode", rngs=rngs)
        if config.shared_decoder:
            decoded = dict.fromkeys(config.decoded, *decoded.values()) if decoded else {}
        grid = queries[one].map.shape[2:4]
        boxes = views[one].box, views[one].flip, views[other].box, views[other].flip
        place = pixel_positives(*boxes, grid, threshold=config.threshold)
        foregrounds = tuple(
            foreground([self._source(keys[view], name) for name in config.foreground_of], config.background)
            if side in config.foreground_on and PIXEL in config.compared
            else jnp.ones(place.shape[:2], jnp.bool_)
            for view, side in zip(order, SIDES, strict=True)
        )
        return Direction(queries[one], decoded, keys[other], place, foregrounds)

    def _source(self, keys: Keys, name: str) -> jax.Array:
        return (keys.rgb if name == RGB else keys.difference).map

    # Terms

    def _instance_contrast(self, forward: Forward):
        """Eq. 1."""
        return self._of_pooled(forward, INSTANCE, lambda key: key.rgb)

    def _difference_contrast(self, forward: Forward):
        """Eq. 2."""
        return self._of_pooled(forward, DIFFERENCE, lambda key: key.difference)

    def _of_pooled(self, forward: Forward, name: str, maps_of):
        found = [
            self._find(
                forward,
                name,
                direction.query.embedding[:, None],
                maps_of(direction.key).embedding[:, None],
                jnp.ones((len(direction.place), 1, 1), jnp.bool_),
            )
            for direction in forward.directions
        ]
        return sum(one.losses.mean() for one, _ in found), _report(found)

    def _pixel_contrast(self, forward: Forward):
        """Eq. 5 to 8: averaged over those places of a clip that have a positive, then over those clips that have any."""
        total, found, matched = 0.0, [], []
        for direction in forward.directions:
            keys = direction.key.difference.map
            queries = direction.decoded[PIXEL][0] if PIXEL in direction.decoded else direction.query.map
            clips, times, *_, channels = queries.shape
            first, second = direction.foreground
            place = direction.place & first[:, :, None] & second[:, None]
            # The same place at the same time.
            at_once = jnp.eye(times, dtype=jnp.bool_)[None, :, None, :, None]
            places = place.shape[1] * times
            positives = (place[:, None, :, None] & at_once).reshape(clips, places, places)
            rows = (x.reshape(clips, places, channels) for x in (queries, keys))
            found.append(self._find(forward, PIXEL, *rows, positives))
            has_positive = positives.any(2)
            of_clips = found[-1][0].losses.sum(1) / jnp.maximum(has_positive.sum(1, dtype=jnp.float32), 1.0)
            some = has_positive.any(1)
            total += of_clips.sum() / jnp.maximum(some.sum(dtype=jnp.float32), 1.0)
            matched.append((has_positive, some.mean(dtype=jnp.float32)))
        report = _report(found, [rows for rows, _ in matched])
        return total, report | {"matched": sum(share for _, share in matched) / 2}

    def _frame_contrast(self, forward: Forward):
        """Eq. 9 and 10."""
        found = []
        for direction in forward.directions:
            token, parts = direction.decoded[FRAME][1], direction.key.parts
            own = jnp.broadcast_to(jnp.eye(parts.shape[1], dtype=jnp.bool_), (len(parts), *2 * parts.shape[1:2]))
            found.append(self._find(forward, FRAME, token, parts, own))
        return sum(one.losses.mean() for one, _ in found), _report(found)

    def _frame_regression(self, forward: Forward):
        """L_Fra without negatives of other videos (Table 9): squared distance of unit vectors, or a margin of cosines
        between a part and the others of its clip."""
        total = 0.0
        for direction in forward.directions:
            queries = unit_vectors(self._projected(forward.params, direction.decoded[FRAME][1], FRAME))
            keys = unit_vectors(self._projected(forward.key_params, direction.key.parts, FRAME))
            cosines = jnp.einsum("bic,bjc->bij", queries, jax.lax.stop_gradient(keys))
            own = jnp.diagonal(cosines, axis1=1, axis2=2)
            if self.config.frame_loss == "mse":
                total += jnp.mean(2 - 2 * own)
                continue
            apart = jnp.maximum(MARGIN + cosines - own[..., None], 0.0)
            others = ~jnp.eye(own.shape[1], dtype=jnp.bool_)
            total += jnp.sum(jnp.where(others, apart, 0.0)) / max(len(own) * int(own.shape[1] * (own.shape[1] - 1)), 1)
        return total, {}

    def _find(
        self, forward: Forward, name: str, queries: jax.Array, keys: jax.Array, positives: jax.Array
    ) -> tuple[InfoNCE, jax.Array]:
        """Queries `[B, M, C]` among keys `[B, K, C]` and the negatives; and by which chance guessing is right `[B, M]`."""
        queries = self._projected(forward.params, queries, name)
        keys = jax.lax.stop_gradient(self._projected(forward.key_params, keys, name))
        options, right = {"temperature": self.config.temperature}, positives.sum(2, dtype=jnp.float32)
        if forward.queues is not None and name in forward.queues:
            found = info_nce_of_clips(queries, keys, positives, negatives=forward.queues[name], **options)
            return found, right / (keys.shape[1] + len(forward.queues[name]))
        group = self.config.pixel_group if name == PIXEL and not self.config.pixel_queue else 0
        found = info_nce_of_clips(queries, keys, positives, same=forward.same, group=group, **options)
        return found, right / (keys.shape[1] * (group or len(keys)))

    def _projected(self, params: Variables, x: jax.Array, name: str) -> jax.Array:
        return self.network.apply({"params": params}, x, name, method="project")

    def _enqueue(self, queues: Variables, forward: Forward) -> Variables:
        """The queues with the keys of both views, after both have been compared: no clip meets a key of its own."""
        seen = {
            INSTANCE: lambda key: key.rgb.embedding,
            DIFFERENCE: lambda key: key.difference.embedding,
            PIXEL: lambda key: key.difference.map,
            FRAME: lambda key: key.parts,
        }
        moved = {}
        for name, queue in queues.items():
            held, following = queue["keys"], queue["next"]
            for direction in forward.directions:
                keys = self._projected(forward.key_params, seen[name](direction.key), name)
                keys = keys.reshape(-1, keys.shape[-1])
                if 2 * len(keys) > len(held):
                    field = "pixel_queue" if name == PIXEL else "queue"
                    raise ValueError(f"{field}: {len(held)} keys are fewer than the {2 * len(keys)} of a batch")
                held, following = enqueue(held, following, keys)
            moved[name] = {"keys": held, "next": following}
        return moved


def pixel_positives(box_q, flip_q, box_k, flip_k, grid: tuple[int, int], *, threshold: float = 0.7) -> jax.Array:
    """Which cells of one view's map show the same place of the video as each cell of another's (FIMA section 3.1).

    The same are cells whose centres are nearer than `threshold` times the diagonal of a cell, of the view whose cells
    are the larger ones.

    Args:
      box_q, box_k: [B, 4], floating, (top, left, height, width) of what both views show, in pixels of the video.
      flip_q, flip_k: bool [B], whether they are mirrored.
      grid: (H, W) of the maps.
      threshold: above 0.

    Returns:
      bool [B, HW, HW]: [b, i, j] for cell i of view q and cell j of view k, both row by row.

    Raises:
      ValueError: the shapes do not fit.
    """
    centres = [cell_centres(*view, grid) for view in ((box_q, flip_q), (box_k, flip_k))]
    first, second = (x.reshape(x.shape[0], -1, 2) for x in centres)
    distances = jnp.linalg.norm(first[:, :, None] - second[:, None], axis=-1)
    diagonals = jnp.maximum(cell_diagonals(box_q, grid), cell_diagonals(box_k, grid))
    return distances < threshold * diagonals[:, None, None]


def foreground(maps: Sequence[jax.Array], background: float) -> jax.Array:
    """Places whose activation, the sum of the maps' means over channels and time, exceeds a quantile (FIMA eq. 6).

    Args:
      maps: each [B, T, H, W, C], floating.
      background: beta, the quantile.

    Returns:
      bool [B, HW].
    """
    activation = sum(x.astype(jnp.float32).mean((1, 4)) for x in maps)
    activation = activation.reshape(len(activation), -1)
    return activation > jnp.quantile(activation, background, axis=1, keepdims=True)


def _report(found: Sequence[tuple[InfoNCE, jax.Array]], rows: Sequence[jax.Array] | None = None) -> Mapping:
    """The share of queries that find a positive, and by which chance; of those `rows` that have one, in each direction."""
    rows = [jnp.ones_like(one.hits) for one, _ in found] if rows is None else rows
    count = jnp.maximum(sum(row.sum(dtype=jnp.float32) for row in rows), 1.0)
    hits = sum(jnp.sum(one.hits & row, dtype=jnp.float32) for (one, _), row in zip(found, rows, strict=True))
    chance = sum(jnp.sum(odds, where=row) for (_, odds), row in zip(found, rows, strict=True))
    return {"top1": hits / count, "chance": chance / count}
