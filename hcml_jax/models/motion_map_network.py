"""Motion maps of clips, in two resolutions, and what they and the backbone tell of the action (CGM-Net)."""

import dataclasses
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from hcml_jax.config import ConfigError, nearest
from hcml_jax.models.action_cnn import ActionCNN
from hcml_jax.models.backbone import Backbone
from hcml_jax.models.heads import Classifier
from hcml_jax.models.layers import Train
from hcml_jax.models.motion_map_decoder import MotionMapDecoder
from hcml_jax.models.motion_upsampler import INTERPOLATIONS, MotionMaps, MotionUpsampler, upsample_maps

GUIDED, LEARNT = "guided", "learnt"
UPSAMPLINGS = (GUIDED, LEARNT, *INTERPOLATIONS, "none")
BACKBONE, LR, HR = PIPELINES = ("backbone", "lr", "hr")  # what tells the action


@dataclasses.dataclass(frozen=True)
class MotionMapConfig:
    """Sizes of a network of motion maps.

    Attributes:
      scale: s, rows and columns of a frame per row and column of the low-resolution maps.
      filter_size: k of the low-resolution maps, odd.
      upsampled_filter_size: k of the full-resolution maps, odd; for "guided" and "learnt" upsampling.
      upsampling: "guided" by context; "learnt", the same with motion features in the place of context; "nearest" or
        "bilinear" (Table 6); or "none": only low-resolution maps.
      decoder_widths: see `MotionMapDecoder`.
      lr_widths, lr_strides, hr_widths, hr_strides: of the action CNNs on maps of each resolution: see `ActionCNN`.
    """

    scale: int = 4
    filter_size: int = 5
    upsampled_filter_size: int = 9
    upsampling: str = GUIDED
    decoder_widths: tuple[int, ...] = (320, 128, 128, 64)
    lr_widths: tuple[int, ...] = (64, 128, 128, 256, 256, 320)
    lr_strides: tuple[int, ...] = (2, 2, 1, 2, 1, 1)
    hr_widths: tuple[int, ...] = (64, 64, 128, 128, 64, 64)
    hr_strides: tuple[int, ...] = (1, 2, 2, 2, 1, 1)

    def __post_init__(self):
        if self.scale < 1:
            raise ConfigError(f"scale must be 1 or more, not {self.scale}")
        for field in ("filter_size", "upsampled_filter_size"):
            size = getattr(self, field)
            if size < 1 or size % 2 == 0:
                raise ConfigError(f"{field} must be odd, for a filter has a middle; found {size}")
        if self.upsampling not in UPSAMPLINGS:
            raise ConfigError(f"upsampling: there is no {self.upsampling!r}. {nearest(self.upsampling, UPSAMPLINGS)}")
        least = self.filter_size + (2 if self.scale > 1 else 0)  # pixels of frames are smaller
        if self.upsampling in (GUIDED, LEARNT) and self.upsampled_filter_size < least:
            raise ConfigError(
                f"upsampled_filter_size must be {least} or more at scale {self.scale}, for filter_size is "
                f"{self.filter_size}; found {self.upsampled_filter_size}"
            )
        if not self.decoder_widths or min(self.decoder_widths) < 1:
            raise ConfigError(f"decoder_widths must be numbers, 1 or more, not {self.decoder_widths}")
        for name in (LR, HR):
            widths, strides = getattr(self, f"{name}_widths"), getattr(self, f"{name}_strides")
            if len(widths) != len(strides) or not widths or min(*widths, *strides) < 1:
                raise ConfigError(
                    f"{name}_widths and {name}_strides must be as many, 1 or more; found {widths} and {strides}"
                )


class Moved(NamedTuple):
    """Outputs of the network for clips.

    Attributes:
      embedding: float32 `[B, C]`, the backbone's.
      features: the backbone's, by name.
      lr: low-resolution motion maps, for frames that are `scale` times smaller.
      hr: full-resolution motion maps; None without upsampling.
      motion: `[B, T, H / s, W / s, C]`, motion features: those that guide, or those that maps are decoded from.
      logits: pipeline -> class scores `[B, classes]`.
    """

    embedding: jax.Array
    features: dict[str, jax.Array]
    lr: MotionMaps
    hr: MotionMaps | None
    motion: jax.Array
    logits: dict[str, jax.Array]


class MotionMapNetwork(nn.Module):
    """The context guided motion network (CGM-Net, Figure 3), with its action classifiers (3.4).

    Attributes:
      backbone: the video encoder.
      context: a 2-D network whose last features guide upsampling; None: nothing guides it.
      config: sizes.
      classes: number of classes.
      pipelines: sources of action scores: "backbone", "lr" or "hr"; (): there are none.
      dtype: what convolutions compute in.
    """

    backbone: Backbone
    context: Backbone | None = None
    config: MotionMapConfig = MotionMapConfig()
    classes: int = 0
    pipelines: tuple[str, ...] = ()
    dtype: jnp.dtype = jnp.float32

    def setup(self):
        config, options, channels = self.config, {"dtype": self.dtype}, 0
        if config.upsampling == GUIDED:
            channels = self.context.feature_spec[self.context.stages[-1]].channels
        self.decoder = MotionMapDecoder(config.decoder_widths, config.filter_size, channels, **options)
        if config.upsampling in (GUIDED, LEARNT):
            self.upsampler = MotionUpsampler(config.scale, config.upsampled_filter_size, **options)
        if BACKBONE in self.pipelines:
            self.classifier = Classifier(self.classes)
        if LR in self.pipelines:
            self.lr_action = ActionCNN(self.classes, config.lr_widths, config.lr_strides, **options)
        if HR in self.pipelines:
            self.hr_action = ActionCNN(self.classes, config.hr_widths, config.hr_strides, **options)

    def __call__(self, clip: jax.Array, train: Train, *, even_context: bool = False) -> Moved:
        """Estimate motion in clips `[B, T, H, W, 3]`: from each frame to the next, from the last to an unseen one.

        Args:
          clip: normalised.
          train: how batch normalisation behaves.
          even_context: whether each frame's context is replaced by its spatial mean, to see its effect.

        Raises:
          ValueError: the frames do not divide by the scale, or are too small for the filters.
        """
        frames, (height, width), scale = clip.shape[1], clip.shape[2:4], self.config.scale
        if height % scale or width % scale:
            raise ValueError(f"scale: frames of {height} x {width} pixels do not divide by {scale}")
        embedding, features = self.backbone(clip, train)
        grid = frames, height // scale, width // scale
        maps, motion = self.decoder(self.backbone.last_map(features), grid, train)
        lr, hr = MotionMaps(maps), self._upsampled(clip, maps, motion, train, even_context)
        logits = {}
        if BACKBONE in self.pipelines:
            logits[BACKBONE] = self.classifier(embedding)
        if LR in self.pipelines:
            logits[LR] = self.lr_action(lr.maps, train)
        if HR in self.pipelines:
            logits[HR] = self.hr_action(hr.maps, train)
        return Moved(embedding, features, lr, hr, motion, logits)

    def _upsampled(
        self, clip: jax.Array, maps: jax.Array, motion: jax.Array, train: Train, even_context: bool
    ) -> MotionMaps | None:
        """Motion maps of the frames as they are; None without upsampling."""
        if self.config.upsampling == "none":
            return None
        if self.config.upsampling in INTERPOLATIONS:
            return upsample_maps(maps, self.config.scale, self.config.upsampling)
        if self.config.upsampling == LEARNT:
            return self.upsampler(maps, motion, motion)
        _, features = self.context(clip, train)
        context = features[self.context.stages[-1]]
        if even_context:
            context = jnp.broadcast_to(context.mean((2, 3), keepdims=True), context.shape)
        if context.shape[1:4] != motion.shape[1:4]:
            context = jax.image.resize(context, motion.shape, "linear")
        return self.upsampler(maps, motion, context)
