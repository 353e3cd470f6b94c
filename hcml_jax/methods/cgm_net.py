"""Context guided motion network (Tian et al., CGM-Net): motion is one small filter for each pixel.

Low-resolution filters are decoded from a clip and upsampled under the guidance of each frame's context. They are
learnt without labels, by predicting from each frame the one that follows, including one that the network has not seen;
then they recognise the action together with the backbone.
"""

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hcml_jax import augment
from hcml_jax.batch import Batch, Reads
from hcml_jax.config import ConfigError, nearest
from hcml_jax.methods.base import (
    BackboneMethod,
    Encoded,
    Highlight,
    Outputs,
    Schedule,
    Stage,
    Term,
    Variables,
    check_dtype,
    everything,
    masked_mean,
    under,
    weigh,
)
from hcml_jax.methods.recognition import classification_loss, random_crop
from hcml_jax.models import Backbone, BackboneConfig, MotionMapConfig, MotionMapNetwork, Moved, TrainMode
from hcml_jax.models.layers import at_least_float32
from hcml_jax.models.motion_map_network import BACKBONE, GUIDED, HR, LEARNT, LR, PIPELINES
from hcml_jax.models.resnet import STAGES, ResNet
from hcml_jax.ops import charbonnier, copying_filter, flow_of_maps, resize_area, resize_flow
from hcml_jax.ops.image_quality import LEAST_ERROR
from hcml_jax.rng import stream

MOTION, JOINT = "motion", "joint"
RECOGNISERS = {BACKBONE: "classifier", LR: "lr_action", HR: "hr_action"}  # pipeline -> module, which labels alone teach
EPSILON = 1e-6  # of the penalty, for frames in [-1, 1]


@dataclasses.dataclass(frozen=True)
class CGMNetConfig:
    """Fields of the method "cgm_net"; defaults are the paper's, or decided where it is silent.

    Attributes:
      stages: {"motion": its schedule}, and "joint" where there are labels.
      backbone: the video encoder.
      motion_blocks: the stages of it after which a motion block stands (HCML's; CGM-Net has none).
      context: the network whose features guide upsampling.
      context_stage: the last stage of `context`.
      maps: sizes of the motion map network.
      pipelines: sources of action scores that are trained: "backbone", "lr" or "hr".
      inference: those whose scores are averaged after training (Table 8); (): all.
      lr_weight: lambda_1, of the low-resolution loss.
      classification_weight: lambda_2, of the joint stage.
      area: (least, most) share of the frame that a training clip shows: see `Reads`.
      batch_norm_group: clips over which batch statistics are taken; 0: the global batch.
      flip: whether clips are mirrored at random (a flip changes labels such as "left").
      dtype: what convolutions compute in, "float32" or "bfloat16".
    """

    stages: dict[str, Schedule]
    backbone: BackboneConfig = BackboneConfig("resnet3d_18")
    motion_blocks: tuple[str, ...] = ()
    context: BackboneConfig = BackboneConfig("resnet_18", stem_pool=False)
    context_stage: str = "res3"
    maps: MotionMapConfig = MotionMapConfig()
    pipelines: tuple[str, ...] = PIPELINES
    inference: tuple[str, ...] = ()
    lr_weight: float = 1.0
    classification_weight: float = 10.0
    area: tuple[float, float] | None = None
    batch_norm_group: int = 0
    flip: bool = False
    dtype: str = "float32"

    def __post_init__(self):
        check_dtype(self.dtype)
        _ = self.reads
        known = set(PIPELINES) - ({HR} if self.maps.upsampling == "none" else set())
        for pipeline in self.pipelines:
            if pipeline not in known:
                raise ConfigError(f"pipelines: there is no {pipeline!r} here. {nearest(pipeline, sorted(known))}")
        if not self.pipelines or len(set(self.pipelines)) < len(self.pipelines):
            raise ConfigError(f"pipelines must name what tells the action, each once; found {self.pipelines}")
        for pipeline in self.inference:
            if pipeline not in self.pipelines:
                hint = nearest(pipeline, self.pipelines)
                raise ConfigError(f"inference: {pipeline!r} is none of the pipelines that learn. {hint}")
        for stage in self.motion_blocks:
            if stage not in self.backbone.stages:
                raise ConfigError(
                    f"motion_blocks: no stage is called {stage!r}. {nearest(stage, self.backbone.stages)}"
                )
        context = self.context.bare
        if not isinstance(context, ResNet) or context.conv != "2d" or max(context.temporal_strides) > 1:
            raise ConfigError(f"context: {self.context.name!r} does not see each frame alone; take a 'resnet_...'")
        normalisations = [(one.mean, one.std) for one in (self.context, BackboneConfig(), self.backbone)]
        if normalisations[0] not in normalisations[1:]:
            raise ConfigError("context: mean and std are the backbone's; set those of config.method.backbone")
        if self.context_stage not in STAGES:
            hint = nearest(self.context_stage, STAGES)
            raise ConfigError(f"context_stage: no stage is called {self.context_stage!r}. {hint}")
        if min(self.lr_weight, self.classification_weight) < 0:
            raise ConfigError("lr_weight and classification_weight must be 0 or more")
        if MOTION not in self.stages or not set(self.stages) <= {MOTION, JOINT}:
            raise ConfigError(f"stages must be 'motion' and, to use labels, 'joint', not {sorted(self.stages)}")

    @property
    def reads(self) -> Reads:
        """The clip, and the frame behind it."""
        return dataclasses.replace(random_crop(self.area), future=1)

    @property
    def guided(self) -> bool:
        """Whether context guides upsampling."""
        return self.maps.upsampling == GUIDED

    def build_context(self) -> Backbone | None:
        """The context extractor; None where nothing guides upsampling."""
        if not self.guided:
            return None
        return self.context.build(last=self.context_stage, dtype=jnp.dtype(self.dtype))


class Forward(NamedTuple):
    """Inputs of a loss term.

    Attributes:
      frames: float32 `[B, T + 1, H, W, 3]` in `[0, 1]`, augmented: the clip, and the frame after it.
      follows: bool `[B, T]`, whether the next frame follows in the video.
      label: int `[B]`, negative where unlabelled.
      moved: what the network makes of the clip.
    """

    frames: jax.Array
    follows: jax.Array
    label: jax.Array
    moved: Moved


@dataclasses.dataclass(frozen=True)
class CGMNet(BackboneMethod):
    """The method; `num_classes` 0 leaves out the joint stage, and with it what recognises."""

    config: CGMNetConfig
    num_classes: int = 0

    @property
    def _pipelines(self) -> tuple[str, ...]:
        return self.config.pipelines if self.num_classes and JOINT in self.config.stages else ()

    @property
    def deployed(self) -> tuple[str, ...]:
        """See `Method`: everything."""
        guide = ("context",) if self.config.guided else ()
        learnt = ("upsampler",) if self.config.maps.upsampling in (GUIDED, LEARNT) else ()
        return ("backbone", "decoder", *guide, *learnt, *(RECOGNISERS[name] for name in self._pipelines))

    @property
    def attended(self) -> str:
        """See `Method`."""
        return f"backbone/{self.config.backbone.stages[-1]}"

    @functools.cached_property
    def network(self) -> MotionMapNetwork:
        """The Linen module whose variables this method works on."""
        config, dtype = self.config, jnp.dtype(self.config.dtype)
        return MotionMapNetwork(
            backbone=config.backbone.build(motion_blocks=config.motion_blocks, dtype=dtype),
            context=config.build_context(),
            config=config.maps,
            classes=self.num_classes,
            pipelines=self._pipelines,
            dtype=dtype,
        )

    @functools.cached_property
    def stages(self) -> tuple[Stage, ...]:
        """Motion, without labels; then, where there are any, motion and action together (eq. 7)."""
        config = self.config
        weights = {LR: config.lr_weight} | ({} if config.maps.upsampling == "none" else {HR: 1.0})
        chances = {"psnr": "psnr_of_copying"}
        terms = {
            f"reconstruction/{name}": Term(functools.partial(self._reconstruction, name=name), weight, chances=chances)
            for name, weight in weights.items()
        }
        options = {"reads": config.reads, "batch_norm_group": config.batch_norm_group}
        stages = [Stage(MOTION, config.stages[MOTION], _moves, terms, **options)]
        if self._pipelines:
            action = Term(self._classification, config.classification_weight, classifies=True)
            terms = terms | {"classification": action}
            stages.append(Stage(JOINT, config.stages[JOINT], everything, terms, **options, labelled_only=True))
        return tuple(stages)

    def init(self, key: jax.Array, batch: Batch) -> Variables:
        """See `Method`."""
        return self.network.init(stream(key, "params"), self.normalise(batch.clip[:, 0]), False)

    def loss(
        self, variables: Variables, batch: Batch, key: jax.Array, stage: Stage, *, train: bool
    ) -> tuple[jax.Array, Outputs]:
        """CGM-Net eq. 7; without the last term in the stage "motion"."""
        if batch.future is None:
            raise ValueError("batch.future: the frame behind each clip is predicted; read it with Reads(future=1)")
        frames = augment.to_float(jnp.concatenate([batch.clip[:, 0], batch.future[:, 0]], axis=1))
        if train and self.flips:
            frames = augment.flip(frames, augment.draw_flip(stream(key, "flip"), len(frames)))
        mode = TrainMode(stage.trainable, stage.batch_norm_group) if train else False
        clip = self.normalise(frames[:, :-1])
        moved, collections = self.network.apply(variables, clip, mode, mutable=["batch_stats"])
        forward = Forward(frames, batch.consecutive[:, 0], batch.label, moved)
        loss, metrics = weigh(stage.terms, forward)
        return loss, Outputs(metrics, collections)

    def encode(self, variables: Variables, clips: jax.Array) -> Encoded:
        """The embedding, motion features, the flow of the filters, and scores of the mean probabilities of the
        pipelines that the config chooses for inference."""
        moved = self.network.apply(variables, self.normalise(clips), False)
        motion = at_least_float32(moved.motion)
        last = at_least_float32(moved.features[self.config.backbone.stages[-1]])
        features, flow = {"backbone": moved.embedding, "motion": motion.mean((1, 2, 3))}, _flow(moved, clips.shape[2:4])
        chosen = self.config.inference or tuple(moved.logits)
        logits = _averaged({name: scores for name, scores in moved.logits.items() if name in chosen})
        return Encoded(features, {"motion": motion}, {"motion": flow}, logits, last)

    def frames_of(self, frames: int) -> dict[str, np.ndarray]:
        """See `Method`."""
        return {"motion": np.arange(frames)}

    def next_frames(self, variables: Variables, clips: jax.Array) -> jax.Array | None:
        """See `Method`; low-resolution maps alone predict no frames, unless the scale is 1."""
        moved = self.network.apply(variables, self.normalise(clips), False)
        maps = moved.lr if self.config.maps.scale == 1 and moved.hr is None else moved.hr
        return None if maps is None else maps.apply(augment.to_float(clips))

    def highlights(self, variables: Variables, batch: Batch) -> dict[str, Highlight]:
        """Distance of filters from the copying filter (Figure 4), and the effect of context on them: both are sums over
        a filter's entries; the second compares with filters whose context is constant over a frame."""
        see = functools.partial(self.network.apply, variables, self.normalise(batch.clip[:, 0]), False)
        moved = see()
        maps = (moved.hr or moved.lr).maps
        copying = copying_filter(math.isqrt(maps.shape[-1]))
        found = {"motion": Highlight(0, jnp.abs(maps - copying).sum(-1))}
        if self.config.guided:
            found["context"] = Highlight(0, jnp.abs(maps - see(even_context=True).hr.maps).sum(-1))
        return found

    def _reconstruction(self, forward: Forward, *, name: str):
        """Eq. 6, in one of both resolutions: the sum over frames of the mean over pixels and colours."""
        frames, maps = forward.frames, getattr(forward.moved, name)
        height, width = maps.maps.shape[2:4]
        if frames.shape[2:4] != (height, width):
            frames = resize_area(frames, height, width)
        predicted, following = maps.apply(frames[:, :-1]), frames[:, 1:]
        # The penalty is of frames in [-1, 1].
        penalty = charbonnier(2 * (predicted - following), alpha=0.5, epsilon=EPSILON).mean((2, 3, 4))
        following_psnr = functools.partial(_psnr, following=following, follows=forward.follows)
        report = {
            "l1": masked_mean(2 * jnp.abs(predicted - following).mean((2, 3, 4)), forward.follows),
            "psnr": following_psnr(predicted),
            "psnr_of_copying": following_psnr(frames[:, :-1]),
        }
        return jnp.sum(penalty, axis=1, where=forward.follows).mean(), report

    def _classification(self, forward: Forward):
        """The mean over pipelines."""
        logits = forward.moved.logits
        found = {name: classification_loss(scores, forward.label) for name, scores in logits.items()}
        report = {f"{name}/top1": told["top1"] for name, (_, told) in found.items()}
        report |= classification_loss(_averaged(logits), forward.label)[1]
        return sum(loss for loss, _ in found.values()) / len(found), report


def _averaged(logits: Mapping[str, jax.Array]) -> jax.Array | None:
    """Class scores whose probabilities are the mean of all pipelines'; None where there are none."""
    if not logits:
        return None
    each = jnp.stack([jax.nn.log_softmax(scores) for scores in logits.values()])
    return jax.nn.logsumexp(each, axis=0) - np.log(len(each)).astype(np.float32)


def _psnr(images: jax.Array, following: jax.Array, follows: jax.Array) -> jax.Array:
    """PSNR in dB, of the mean squared error over all counted frames: still ones, where a copy is perfect, add 0."""
    error = masked_mean(jnp.square(images - following).mean((2, 3, 4)), follows)
    return -10 * jnp.log10(jnp.maximum(error, LEAST_ERROR))


def _flow(moved: Moved, size: tuple[int, int]) -> jax.Array:
    """`[B, T - 1, H, W, 2]`, in pixels of the clip, from each frame to the next."""
    maps = moved.hr or moved.lr
    return resize_flow(flow_of_maps(maps.maps[:, :-1], dilation=maps.dilation), *size)


def _moves(path: tuple[str, ...]) -> bool:
    """Whether a parameter serves motion maps."""
    return not under(path, *RECOGNISERS.values())
