"""The config of FIMA."""

import dataclasses
import functools

import jax.numpy as jnp

from hcml_jax.augment import PhotometricConfig
from hcml_jax.batch import Reads
from hcml_jax.config import ConfigError, nearest
from hcml_jax.methods.base import Schedule, check_dtype
from hcml_jax.models import Backbone, BackboneConfig, MotionDecoderConfig
from hcml_jax.ops.frame_difference import FIRSTS

# The contrasts; each may have a projection, a decoder and a queue of its own.
INSTANCE, DIFFERENCE, PIXEL, FRAME = "instance", "difference", "pixel", "frame"
DECODED = (PIXEL, FRAME)

RGB = "rgb"
SOURCES = (RGB, DIFFERENCE)  # of activation
PREDICTION, TARGET = "prediction", "target"
SIDES = (PREDICTION, TARGET)
FRAME_LOSSES = ("info_nce", "triplet", "mse")

LEAST = {  # field -> its least value
    "stride": 1,
    "hidden": 1,
    "channels": 1,
    "queue": 1,
    "pixel_queue": 0,
    "pixel_group": 1,
    "batch_norm_group": 1,
}


@dataclasses.dataclass(frozen=True)
class FIMAConfig:
    """Fields of the method "fima"; defaults are the paper's on UCF-101, or decided where it is silent.

    Attributes:
      stages: {"contrast": its schedule}.
      backbone: which backbone.
      motion_blocks: the stages of it after which a motion block stands (HCML's; FIMA has none).
      stride: a clip is every `stride`-th frame that is read; its halves, for L_Fra, have all their frames.
      hidden, channels: of the projections, whose outputs are compared.
      shared_projection: whether all losses compare by the same projection; otherwise each has its own.
      decoder: sizes of the motion decoder; 0 layers: places are compared as they are (Table 2).
      shared_decoder: whether L_Pix and L_Fra share one (Table 8).
      instance_weight, pixel_weight, frame_weight: of L_VV, L_Pix and L_Fra (eq. 11); 0 leaves a term out.
      difference_weight: of L_VD (eq. 2), the baseline of Table 1.
      frame_loss: how L_Fra compares: "info_nce" (eq. 10), "triplet" or "mse" (Table 9).
      temperature: tau.
      queue: keys of earlier batches, of each of L_VV, L_VD and L_Fra.
      pixel_queue: places of earlier batches, for L_Pix; 0: negatives are the places of other videos of the batch.
      pixel_group: without a `pixel_queue`: number of consecutive clips of the batch that are one another's negatives
        (in the paper, those of a GPU); must divide the batch.
      momentum: share of the key encoder that a step keeps.
      batch_norm_group: clips over which batch statistics are taken, fewer than the batch.
      threshold: distance below which places of both views are the same, in diagonals of the larger cells.
      background: beta, the share of a map's places, those of least activation, that are background (eq. 6).
      foreground_of: features that activation is computed from: "rgb", "difference" (Table 3e).
      foreground_on: sides on which the background is left out: "prediction", "target" (Table 3f).
      first_difference: `first` of `frame_difference`.
      area: (least, most) share of the frame that a clip shows: see `Reads`.
      part_area: (least, most) share of its clip's picture that each half of L_Fra shows, drawn for each (the released
        code draws a crop of the video for each); None: all of it.
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
    part_area: tuple[float, float] | None = None
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
        try:
            self.reads  # noqa: B018
        except ValueError as error:
            raise ConfigError(f"area, min_offset, max_offset: {error}") from error
        try:
            Reads(area=self.part_area)
        except ValueError as error:
            raise ConfigError(f"part_area: {error}") from error

    def _check_choices(self):
        for name, known in (("first_difference", FIRSTS), ("frame_loss", FRAME_LOSSES)):
            if (value := getattr(self, name)) not in known:
                raise ConfigError(f"{name}: there is no {value!r}. {nearest(value, known)}")
        for name, known in (("foreground_of", SOURCES), ("foreground_on", SIDES)):
            for value in getattr(self, name):
                if value not in known:
                    raise ConfigError(f"{name}: there is no {value!r}. {nearest(value, known)}")
        if self.foreground_on and not self.foreground_of:
            raise ConfigError(
                "foreground_of must name 'rgb', 'difference' or both; for no foreground, foreground_on=()"
            )

    @property
    def weights(self) -> dict[str, float]:
        """What is compared -> its weight."""
        return {name: getattr(self, f"{name}_weight") for name in (INSTANCE, DIFFERENCE, PIXEL, FRAME)}

    @property
    def compared(self) -> tuple[str, ...]:
        """Contrasts that any term uses."""
        return tuple(name for name, weight in self.weights.items() if weight)

    @property
    def decoded(self) -> tuple[str, ...]:
        """Contrasts whose queries a motion decoder outputs."""
        return tuple(name for name in self.compared if name in DECODED) if self.decoder.layers else ()

    @property
    def queues(self) -> dict[str, int]:
        """Contrast with keys of earlier batches -> how many of them."""
        sizes = {name: self.queue for name in self.compared if name != PIXEL}
        if self.frame_loss != "info_nce":
            sizes.pop(FRAME, None)
        return sizes | ({PIXEL: self.pixel_queue} if self.pixel_weight and self.pixel_queue else {})

    @property
    def reads(self) -> Reads:
        """Two clips of each video."""
        return Reads(clips=2, area=self.area, min_offset=self.min_offset, max_offset=self.max_offset)

    @functools.cached_property
    def strides(self) -> tuple[int, int, int]:
        """Frames, rows and columns of the input per cell of the backbone's last features."""
        bare = self.backbone.bare
        return bare.feature_spec[bare.stages[-1]].strides

    def times(self, frames: int) -> int:
        """T', the number of times of the backbone's last features, for `frames` frames read."""
        return frames // self.stride // self.strides[0]

    def build_backbone(self) -> Backbone:
        """The module of the backbone."""
        return self.backbone.build(motion_blocks=self.motion_blocks, dtype=jnp.dtype(self.dtype))
