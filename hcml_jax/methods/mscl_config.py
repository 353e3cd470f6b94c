"""The config of MSCL."""

import dataclasses
import math

import jax.numpy as jnp

from hcml_jax.augment import PhotometricConfig
from hcml_jax.batch import Reads
from hcml_jax.config import ConfigError, nearest
from hcml_jax.methods.base import Schedule, check_dtype
from hcml_jax.models import Backbone, BackboneConfig

RGB, FLOW = "rgb", "flow"
ROTATED = "rotated"  # flow whose vectors are turned; its negatives are the queue's of flow

LEAST = {  # field -> its least value
    "queue": 1,
    "channels": 1,
    "batch_norm_group": 1,
    "momentum_steps": 0,
    "rotation_steps": 0,
    "rotated_weight": 0,
}


@dataclasses.dataclass(frozen=True)
class MSCLConfig:
    """Fields of the method "mscl"; defaults are the paper's, or decided where it is silent.

    Attributes:
      stages: {"contrast": its schedule}.
      backbone: of frames.
      motion_blocks: the stages of it after which a motion block stands (HCML's; MSCL has none).
      flow_backbone: of flow images; without strides in time.
      local_stages: of `backbone`, whose features a temporal pyramid merges for single times; one: it alone.
      channels: of all projections.
      rgb_weight, flow_weight, cross_weight, local_weight: of L_RGB, L_Flow, L_RF and L_LMC (eq. 7); 0 leaves a term
        out, and what it alone needs.
      rotated_weight: of L_Flow and L_RF of the rotated flow, among the same queues (the released code has 1; the paper
        has none).
      temperature: tau.
      queue: N, keys of earlier batches, of each modality; a multiple of the batch.
      age_weight: a negative's weight in the sum is this to the power of its age in batches; 1: all weigh the same.
      momentum: share of the key encoders that a step keeps.
      momentum_steps: steps over which it rises to 1, by a cosine (in the released code, all of training); 0: constant.
      batch_norm_group: clips over which batch statistics are taken, fewer than the batch.
      rotation: (least, most) angle by which a clip's flow is rotated for more negatives, in radians; None: no rotation.
      rotation_steps: number of angles, evenly spaced from the least on, without the most; 0: any angle between.
      area: (least, most) share of the frame that a clip shows: see `Reads`.
      max_offset: most frames of the video between the starts of a query and its key; None: any.
      photometric: of the frames; flow is taken of the clip as it was.
      flip: whether clips are mirrored at random (a flip changes labels such as "left").
      dtype: what convolutions compute in, "float32" or "bfloat16".
    """

    stages: dict[str, Schedule]
    backbone: BackboneConfig = BackboneConfig("r3d_18")
    motion_blocks: tuple[str, ...] = ()
    flow_backbone: BackboneConfig = BackboneConfig("resnet_18", width=8)
    local_stages: tuple[str, ...] = ("res3", "res4", "res5")
    channels: int = 128
    rgb_weight: float = 1.0
    flow_weight: float = 1.0
    cross_weight: float = 1.0
    local_weight: float = 1.0
    rotated_weight: float = 0.0
    temperature: float = 0.07
    queue: int = 65_536
    age_weight: float = 1.0
    momentum: float = 0.999
    momentum_steps: int = 0
    batch_norm_group: int = 16
    rotation: tuple[float, float] | None = (math.pi / 3, 5 * math.pi / 3)
    rotation_steps: int = 0
    area: tuple[float, float] = (0.2, 1.0)
    max_offset: int | None = None
    photometric: PhotometricConfig = PhotometricConfig()
    flip: bool = True
    dtype: str = "float32"

    def __post_init__(self):
        check_dtype(self.dtype)
        for stage in self.motion_blocks:
            if stage not in self.backbone.stages:
                raise ConfigError(
                    f"motion_blocks: no stage is called {stage!r}. {nearest(stage, self.backbone.stages)}"
                )
        if set(self.stages) != {"contrast"}:
            raise ConfigError(f"stages must be exactly 'contrast', not {sorted(self.stages)}")
        weights = self.rgb_weight, self.flow_weight, self.cross_weight, self.local_weight
        if min(weights) < 0 or not max(weights):
            raise ConfigError(
                "rgb_weight, flow_weight, cross_weight and local_weight must be 0 or more, one of them above 0; found "
                f"{weights}"
            )
        for name, least in LEAST.items():
            if getattr(self, name) < least:
                raise ConfigError(f"{name} must be {least} or more, not {getattr(self, name)}")
        for name, high in (("momentum", 1.0), ("age_weight", 1.0)):
            if not 0 < getattr(self, name) <= high:
                raise ConfigError(f"{name} must be above 0 and at most {high:g}, not {getattr(self, name)}")
        if self.temperature <= 0:
            raise ConfigError(f"temperature must be above 0, not {self.temperature}")
        try:
            self.reads  # noqa: B018
        except ValueError as error:
            raise ConfigError(f"area, max_offset: {error}") from error
        self._check_backbones()

    def build_backbone(self) -> Backbone:
        """The module of the backbone of frames."""
        return self.backbone.build(motion_blocks=self.motion_blocks, dtype=jnp.dtype(self.dtype))

    def _check_backbones(self):
        if self.uses_flow and any(spec.strides[0] > 1 for spec in self.flow_backbone.bare.stage_specs.values()):
            raise ConfigError(
                f"flow_backbone: {self.flow_backbone.name!r} must have no stride in time (temporal_strides), for each "
                "flow image stands for a time"
            )
        if self.rotation and not 0 < self.rotation[0] <= self.rotation[1] < 2 * math.pi:
            raise ConfigError(
                "rotation must be (least, most) in radians, above 0 and below 2 pi, where flow would be as it was, not "
                f"{self.rotation}"
            )
        if self.rotated_weight and not (self.rotation and (self.flow_weight or self.cross_weight)):
            raise ConfigError("rotated_weight needs rotation, and flow_weight or cross_weight above 0")
        if self.rotation_steps and not self.rotation:
            raise ConfigError("rotation_steps needs rotation")
        if not self.local_weight:
            return
        stages = self.backbone.stages
        for name in self.local_stages:
            if name not in stages:
                raise ConfigError(f"local_stages: no stage is called {name!r}. {nearest(name, stages)}")
        if not self.local_stages:
            raise ConfigError("local_weight: single times are compared by features of local_stages; name one or more")
        if list(self.local_stages) != sorted(self.local_stages, key=stages.index):
            raise ConfigError(f"local_stages must be in the order of the backbone's, not {self.local_stages}")

    @property
    def uses_flow(self) -> bool:
        """Whether any term needs flow."""
        return bool(self.flow_weight or self.cross_weight or self.local_weight)

    @property
    def key_modalities(self) -> tuple[str, ...]:
        """Those whose keys any term compares with."""
        needed = {RGB: self.rgb_weight or self.cross_weight, FLOW: self.flow_weight or self.cross_weight}
        return tuple(name for name, weight in needed.items() if weight)

    @property
    def rotates(self) -> bool:
        """Whether any term needs rotated flow."""
        return bool(self.rotated_weight or (self.local_weight and self.rotation))

    @property
    def reads(self) -> Reads:
        """Two clips of each video, and as many flow maps of each as frames: the last leads to a frame behind it."""
        flow = {"future": 1, "flow": True} if self.uses_flow else {}
        return Reads(clips=2, area=self.area, max_offset=self.max_offset, **flow)
