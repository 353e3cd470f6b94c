"""MoCo (He et al., 2020) on clips: a small, complete method, outside the package; docs/methods.md leads through it."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from hcml_jax import augment
from hcml_jax.batch import Batch, Reads
from hcml_jax.config import ConfigError
from hcml_jax.contrastive import enqueue, info_nce_with_queue
from hcml_jax.methods.base import BackboneMethod, Encoded, Outputs, Schedule, Stage, Term, Variables, everything, weigh
from hcml_jax.methods.momentum import follow, key_encoder
from hcml_jax.models import Backbone, BackboneConfig, TrainMode
from hcml_jax.rng import stream


@dataclasses.dataclass(frozen=True)
class MoCoConfig:
    """Fields of the method.

    Attributes:
      stages: {"contrast": its schedule}.
      backbone: which backbone.
      channels: of the projected features.
      queue: keys of earlier batches; as many as a batch or more.
      momentum: what a step keeps of the key encoder.
      temperature: of the contrast.
      flip: whether clips are mirrored at random.
    """

    stages: dict[str, Schedule]
    backbone: BackboneConfig = BackboneConfig()
    channels: int = 16
    queue: int = 32
    momentum: float = 0.99
    temperature: float = 0.1
    flip: bool = True

    def __post_init__(self):
        if set(self.stages) != {"contrast"}:
            raise ConfigError(f"stages must be exactly 'contrast', not {sorted(self.stages)}")


class Encoder(nn.Module):
    """A backbone and a projection of its embedding."""

    backbone: Backbone
    channels: int

    @nn.compact
    def __call__(self, clip: jax.Array, train) -> tuple[jax.Array, jax.Array]:
        """Maps normalised clips `[B, T, H, W, 3]` to embeddings `[B, C]` and projections `[B, channels]`."""
        embedding, _ = self.backbone(clip, train)
        return embedding, nn.Dense(self.channels, name="projection")(embedding)


@dataclasses.dataclass(frozen=True)
class MoCo(BackboneMethod):
    """Clips of one video are alike; the key encoder is a moving average, its keys wait in a queue."""

    config: MoCoConfig
    num_classes: int

    deployed = ("backbone",)

    @functools.cached_property
    def network(self) -> Encoder:
        """The Linen module of both encoders."""
        return Encoder(self.config.backbone.build(), self.config.channels)

    @property
    def stages(self) -> tuple[Stage, ...]:
        """Its only stage reads two clips of each video; its queue takes whole batches."""
        term = Term(self._contrast, over_batch=True)
        schedule = self.config.stages["contrast"]
        reads = Reads(clips=2, area=(0.5, 1.0), max_offset=4)
        return (Stage("contrast", schedule, everything, {"moco": term}, reads),)

    def init(self, key: jax.Array, batch: Batch) -> Variables:
        """The query encoder, and a queue of random directions."""
        clip = self._prepare(batch.clip[:, 0], None)
        learnt = self.network.init(stream(key, "params"), clip, False)
        shape = (self.config.queue, self.config.channels)
        keys = jax.random.normal(stream(key, "queue"), shape)
        return learnt | {"queue": {"keys": keys, "next": jnp.zeros((), jnp.int32)}}

    def derive(self, variables: Variables) -> Variables:
        """The key encoder begins as the query encoder."""
        return {**variables, "key_encoder": key_encoder(variables, variables["params"])}

    def loss(
        self, variables: Variables, batch: Batch, key: jax.Array, stage: Stage, *, train: bool
    ) -> tuple[jax.Array, Outputs]:
        """InfoNCE of the first clip's query with the second clip's key among the queue's."""
        queue, encoder = variables["queue"], variables["key_encoder"]
        mode = TrainMode(stage.trainable, stage.batch_norm_group) if train else False
        query, changed = self._project(variables, batch.clip[:, 0], stream(key, "query"), mode)
        if train:
            encoder = follow(encoder, variables, self.config.momentum)
        keys, stats = self._project(encoder, batch.clip[:, 1], stream(key, "key"), mode)
        keys = jax.lax.stop_gradient(keys)
        loss, metrics = weigh(stage.terms, query, keys, queue["keys"])
        if not train:
            return loss, Outputs(metrics, {})
        held, following = enqueue(queue["keys"], queue["next"], keys)
        moved = {"key_encoder": encoder | stats, "queue": {"keys": held, "next": following}}
        return loss, Outputs(metrics, jax.lax.stop_gradient({**changed, **moved}))

    def encode(self, variables: Variables, clips: jax.Array) -> Encoded:
        """The backbone's embedding."""
        backbone = {name: tree["backbone"] for name, tree in variables.items() if "backbone" in tree}
        network = self.config.backbone.build()
        embedding, _ = network.apply(backbone, self._prepare(clips, None), False)
        return Encoded({"backbone": embedding}, maps={}, flow={})

    def _contrast(self, query, keys, queue):
        found = info_nce_with_queue(query, keys, queue, temperature=self.config.temperature)
        return found.losses.mean(), {"top1": found.hits.mean(dtype=jnp.float32)}

    def _project(self, encoder: Variables, clip, key, mode):
        """Projections, and the new batch statistics."""
        given = {name: encoder[name] for name in ("params", "batch_stats")}
        clip = self._prepare(clip, stream(key, "flip") if mode and self.flips else None)
        (_, projected), stats = self.network.apply(given, clip, mode, mutable=["batch_stats"])
        return projected, stats

    def _prepare(self, clip, flip_key):
        clip = augment.to_float(clip)
        clip = clip if flip_key is None else augment.flip(clip, augment.draw_flip(flip_key, len(clip)))
        return augment.normalise(clip, *self.normalisation)
