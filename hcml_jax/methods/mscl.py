"""Motion sensitive contrastive learning (Ni et al., MSCL): frames are compared with frames and with their flow.

Clips of one video should be similar, in frames, in flow, and across both (momentum contrast). Features of single
frames should match those of the flow at the same time, and not those of other times or of rotated flow (local motion
contrast).
"""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hcml_jax import augment
from hcml_jax.batch import Batch
from hcml_jax.contrastive import (
    InfoNCE,
    enqueue,
    info_nce_and_hits,
    info_nce_with_queue,
    local_motion_contrast_and_hits,
    queue_ages,
)
from hcml_jax.methods.base import QUEUE, Outputs, Stage, Term, Variables, everything, weigh
from hcml_jax.methods.momentum import MomentumContrast, follow, key_encoder, rising, shuffled
from hcml_jax.methods.mscl_config import FLOW, RGB, ROTATED, MSCLConfig
from hcml_jax.models import Stream, TrainMode, TwoStream
from hcml_jax.models.layers import Train
from hcml_jax.ops import flow_to_image, rotate_flow, unit_vectors
from hcml_jax.rng import stream

QUERY, KEY = 0, 1  # clips of a video


class Forward(NamedTuple):
    """Inputs of the loss terms.

    Attributes:
      queries: modality (and "rotated") -> the network's outputs for the first clips.
      keys: modality -> `[B, D]`, projections of the second clips by the key encoders.
      queues: modality -> `[Q, D]`, keys of earlier batches; None in validation, where the other clips of the batch are
        the negatives: queued keys come from augmented clips, other weights and batch statistics: these give them away.
      weights: `[Q]`, of the queued keys as negatives.
      owners: `[B]`, the video of each clip.
      consecutive: bool `[B, T]`, whether the flow of a time leads to the next frame: not where a short video begins
        again.
    """

    queries: dict[str, Stream]
    keys: dict[str, jax.Array]
    queues: dict[str, jax.Array] | None
    weights: jax.Array
    owners: jax.Array
    consecutive: jax.Array


@dataclasses.dataclass(frozen=True)
class MSCL(MomentumContrast):
    """The method; labels are not used."""

    config: MSCLConfig
    num_classes: int = 0
    photometric = property(lambda self: self.config.photometric)

    @functools.cached_property
    def network(self) -> TwoStream:
        """The Linen module whose variables this method works on."""
        config, dtype = self.config, jnp.dtype(self.config.dtype)
        return TwoStream(
            backbone=config.build_backbone(),
            flow_backbone=config.flow_backbone.build(dtype=dtype) if config.uses_flow else None,
            local_stages=config.local_stages if config.local_weight else (),
            channels=config.channels,
            dtype=dtype,
        )

    @functools.cached_property
    def stages(self) -> tuple[Stage, ...]:
        """Its only stage; its queues take whole batches."""
        config = self.config
        own = ((ROTATED, ROTATED),) if config.flow_weight else ()
        across = ((RGB, ROTATED), (ROTATED, RGB)) if config.cross_weight else ()
        terms = {
            "rgb": self._contrast_term(config.rgb_weight, ((RGB, RGB),)),
            "flow": self._contrast_term(config.flow_weight, ((FLOW, FLOW),)),
            "cross": self._contrast_term(config.cross_weight, ((RGB, FLOW), (FLOW, RGB))),
            "rotated": self._contrast_term(config.rotated_weight, own + across),
        }
        terms = {name: term for name, term in terms.items() if term.weight}
        if config.local_weight:
            chances = {"top1": "chance"}
            terms["local"] = Term(self._local_contrast, config.local_weight, over_batch=True, chances=chances)
        schedule = config.stages["contrast"]
        return (Stage("contrast", schedule, everything, terms, config.reads, config.batch_norm_group),)

    def _contrast_term(self, weight: float, pairs: tuple[tuple[str, str], ...]) -> Term:
        """The term of pairs (modality of queries, modality of keys)."""
        compute = functools.partial(self._contrast, pairs=pairs)
        chances = {_hits_of(pair, pairs): "chance" for pair in pairs}
        return Term(compute, weight, over_batch=True, chances=chances)

    def init(self, key: jax.Array, batch: Batch) -> Variables:
        """The encoders, and queues of random directions."""
        config = self.config
        clip, images = self.normalise(batch.clip[:, QUERY]), None
        if config.uses_flow:
            images = self._images(batch.flow[:, QUERY])
        learnt = self.learnt(self.network.init(stream(key, "params"), clip, images, False))
        shape = (config.queue, config.channels)
        queues = {name: jax.random.normal(stream(key, f"queue/{name}"), shape) for name in config.key_modalities}
        counts = {name: jnp.zeros((), jnp.int32) for name in ("next", "batches")}
        return {**learnt, QUEUE: {**queues, **counts}}

    def derive(self, variables: Variables) -> Variables:
        """The key encoders begin as the query encoders, without what compares single times."""
        of = {RGB: ("backbone", "projection"), FLOW: ("flow_backbone", "flow_projection")}
        modules = [module for name in self.config.key_modalities for module in of[name]]
        return {**variables, "key_encoder": key_encoder(variables, modules)}

    def loss(
        self, variables: Variables, batch: Batch, key: jax.Array, stage: Stage, *, train: bool
    ) -> tuple[jax.Array, Outputs]:
        """MSCL eq. 7."""
        config, mode = self.config, TrainMode(stage.trainable, stage.batch_norm_group) if train else False
        self._check_batch(len(batch.clip))
        single = bool(config.local_weight)
        angles = self._angles(stream(key, "rotation"), len(batch.clip)) if config.rotates else None
        clip, flow = self._views(self._view(batch, QUERY), stream(key, "query"), train)
        inputs = self._inputs(clip, flow, angles, self._query_modalities)
        queries, stats = self._encode(variables["params"], variables["batch_stats"], inputs, mode, single)
        encoder, queue = variables["key_encoder"], variables[QUEUE]
        if train:
            encoder = follow(encoder, variables, rising(config.momentum, queue["batches"], config.momentum_steps))
        keys, key_stats = self._keys(encoder, batch, key, angles, mode)
        ages = queue_ages(config.queue, queue["next"], len(batch.clip))
        weights = jnp.float32(config.age_weight) ** ages.astype(jnp.float32)
        queues = {**queue, ROTATED: queue[FLOW]} if config.rotated_weight else queue
        consecutive = batch.consecutive[:, QUERY]
        forward = Forward(queries, keys, queues if train else None, weights, batch.index, consecutive)
        loss, metrics = weigh(stage.terms, forward)
        if not train:
            return loss, Outputs(metrics, {})
        moved = {
            "batch_stats": stats,
            "key_encoder": {**encoder, "batch_stats": key_stats},
            QUEUE: self._enqueue(queue, keys),
        }
        return loss, Outputs(metrics, jax.lax.stop_gradient(moved))

    def _check_batch(self, clips: int) -> None:
        if self.config.queue % clips:
            raise ValueError(f"queue: {self.config.queue} keys are no multiple of a batch of {clips}")
        self.check_groups(clips)

    def similarities(self, variables: Variables, batch: Batch) -> dict[str, jax.Array]:
        """Cosines of frames (rows) with their flow, and with that flow rotated by 180 degrees (columns)."""
        if not self.config.local_weight or "local" not in variables["params"]:  # an export has the backbone alone
            return {}
        learnt, stats = {"params": variables["params"]}, variables["batch_stats"]
        flow = batch.flow[:, QUERY]
        clip = self.normalise(batch.clip[:, QUERY])
        rgb = unit_vectors(self._apply(learnt, stats, "frames", clip, False, True)[0].times)
        found, numbers = {}, self._times(flow.shape[1])
        for name, angle in (("flow", 0.0), ("flow turned by 180 degrees", math.pi)):
            images = self._images(rotate_flow(flow, angle))
            times = self._apply(learnt, stats, "flow", images, False, True)[0].times
            found[f"frames x {name}"] = jnp.einsum("bic,bjc->bij", rgb, unit_vectors(times[:, numbers]))
        return found

    @property
    def _query_modalities(self) -> tuple[str, ...]:
        """What the first clips are seen as."""
        config = self.config
        used = {RGB: True, FLOW: config.uses_flow, ROTATED: config.rotates}
        return tuple(name for name, is_used in used.items() if is_used)

    def _keys(
        self, encoder: Variables, batch: Batch, key: jax.Array, angles: jax.Array | None, mode: Train
    ) -> tuple[dict[str, jax.Array], Variables]:
        """The keys of each modality, and the new statistics of their encoders."""
        config = self.config
        into, back = shuffled(stream(key, "shuffle"), len(batch.clip))
        views = self._views(into(self._view(batch, KEY)), stream(key, "key"), bool(mode))
        modalities = [*config.key_modalities, *([ROTATED] if config.rotated_weight else [])]
        inputs = self._inputs(*views, None if angles is None else into(angles), modalities)
        streams, stats = self._encode(encoder["params"], encoder["batch_stats"], inputs, mode, False)
        keys = {name: back(found.clip) for name, found in streams.items()}
        return jax.lax.stop_gradient(keys), stats

    def _inputs(
        self, clip: jax.Array, flow: jax.Array | None, angles: jax.Array | None, modalities: Sequence[str]
    ) -> dict[str, jax.Array]:
        """Modality -> its encoder's input: augmented clips, their flow, or that flow rotated by angles `[B]`."""
        found = {}
        if RGB in modalities:
            found[RGB] = clip
        if FLOW in modalities:
            found[FLOW] = self._images(flow)
        if ROTATED in modalities:
            found[ROTATED] = self._images(rotate_flow(flow, angles[:, None]))
        return found

    def _encode(
        self, params: Variables, stats: Variables, inputs: dict[str, jax.Array], mode: Train, single: bool
    ) -> tuple[dict[str, Stream], Variables]:
        """Modality -> what its encoder makes of it; and the new statistics."""
        streams = {}
        for name, given in inputs.items():
            method = "frames" if name == RGB else "flow"
            streams[name], stats = self._apply({"params": params}, stats, method, given, mode, single)
        return streams, stats

    def _apply(self, params, stats, method, inputs, mode, single) -> tuple[Stream, Variables]:
        given = {**params, "batch_stats": stats}
        found, changed = self.network.apply(given, inputs, mode, single, method=method, mutable=["batch_stats"])
        return found, changed["batch_stats"]

    def _views(self, given: dict[str, jax.Array], key: jax.Array, train: bool) -> tuple[jax.Array, jax.Array | None]:
        """Normalised clips and their flow, of one view; augmented in training."""
        clip, flow = augment.to_float(given["clip"]), given.get("flow")
        if not train:
            return self.normalise(clip), flow
        if self.config.flip:
            flipped = augment.draw_flip(stream(key, "flip"), len(clip))
            clip = augment.flip(clip, flipped)
            flow = None if flow is None else augment.flip_flow(flow, flipped)
        photometric = self.config.photometric
        drawn = augment.draw_photometric(stream(key, "photometric"), len(clip), photometric)
        return self.normalise(augment.change_photometry(clip, drawn, photometric)), flow

    def _view(self, batch: Batch, number: int) -> dict[str, jax.Array]:
        """The clips of one view, and their flow where it is used."""
        flow = {"flow": batch.flow[:, number]} if self.config.uses_flow else {}
        return {"clip": batch.clip[:, number]} | flow

    def _images(self, flow: jax.Array) -> jax.Array:
        """Normalised flow images `[B, T, H, W, 3]`."""
        backbone = self.config.flow_backbone
        return augment.normalise(flow_to_image(flow), backbone.mean, backbone.std)

    def _angles(self, key: jax.Array, clips: int) -> jax.Array:
        """By how much the flow of each clip is turned, in both views of its video; radians `[B]` (section 3.3)."""
        (least, most), steps = self.config.rotation, self.config.rotation_steps
        share = jax.random.uniform(key, (clips,))
        return least + (most - least) * (jnp.floor(share * steps) / steps if steps else share)

    def _contrast(self, forward: Forward, *, pairs):
        """Eq. 3 and 4: queries of one modality among keys of another, or the same; the sum over the pairs."""
        losses, report = [], {}
        for pair in pairs:
            found, report["chance"] = self._find(forward, *pair)
            losses.append(found.losses.mean())
            report[_hits_of(pair, pairs)] = found.hits.mean(dtype=jnp.float32)
        return sum(losses), report

    def _find(self, forward: Forward, query: str, key: str) -> tuple[InfoNCE, jax.Array]:
        """Each query's own key among the negatives, and by which chance guessing finds it."""
        queries, keys, tau = forward.queries[query].clip, forward.keys[key], self.config.temperature
        if forward.queues is not None:
            weights = forward.weights if self.config.age_weight < 1 else None
            queue = forward.queues[key]
            found = info_nce_with_queue(queries, keys, queue, temperature=tau, weights=weights)
            return found, jnp.float32(1 / (1 + len(queue)))
        own = jnp.arange(len(queries), dtype=jnp.int32)
        owners = forward.owners, forward.owners
        found = info_nce_and_hits(queries, keys, own, temperature=tau, owners=owners)
        return found, jnp.float32(1 / len(queries))

    def _local_contrast(self, forward: Forward):
        """Eq. 5 and 6, averaged over clips and those times whose flow leads to the next frame."""
        rgb, flow = forward.queries[RGB].times, forward.queries[FLOW].times
        numbers = self._times(flow.shape[1])
        rotated = forward.queries[ROTATED].times[:, numbers] if self.config.rotation else None
        valid, temperature = forward.consecutive[:, numbers], self.config.temperature
        found = local_motion_contrast_and_hits(rgb, flow[:, numbers], rotated, valid, temperature=temperature)
        count = jnp.maximum(valid.sum(dtype=jnp.float32), 1.0)
        candidates = valid.sum(1, keepdims=True, dtype=jnp.float32) * (1 if rotated is None else 2)
        figures = {"top1": found.hits, "chance": jnp.broadcast_to(1 / jnp.maximum(candidates, 1.0), valid.shape)}
        shares = {name: jnp.sum(values, where=valid, dtype=jnp.float32) / count for name, values in figures.items()}
        return jnp.sum(found.losses, where=valid) / count, shares

    def _times(self, frames: int) -> np.ndarray:
        """Indices of the frames, and so of the flow images, that the features of single times stand for."""
        clip = np.arange(frames)[None]
        return self.config.backbone.bare.frames_of(self.config.local_stages[0], clip)[0]

    def _enqueue(self, queue: Variables, keys: dict[str, jax.Array]) -> Variables:
        moved, following = {}, queue["next"]
        for name in self.config.key_modalities:
            moved[name], following = enqueue(queue[name], queue["next"], keys[name])
        return {**moved, "next": following, "batches": queue["batches"] + 1}


def _hits_of(pair: tuple[str, str], pairs: tuple[tuple[str, str], ...]) -> str:
    """Metric name for the share of hits of a pair of modalities, distinct among the pairs."""
    query, key = pair
    return "top1" if len(pairs) == 1 or query == key else f"{query}_to_{key}_top1"
