"""Backbones by name."""

import dataclasses
import math
from typing import Any

import flax.linen as nn

from hcml_jax.config import ConfigError, nearest
from hcml_jax.models import resnet
from hcml_jax.models.motion_block import MotionBlockConfig


@dataclasses.dataclass(frozen=True)
class BackboneConfig:
    """Which backbone, and its options.

    Attributes:
      name: family_depth, one of `BACKBONES`.
      width, stem_pool, temporal_strides: see `ResNet`.
      motion: sizes of the motion blocks, where the method has any.
    """

    name: str = "r2d_50"
    width: int = 64
    stem_pool: bool = True
    temporal_strides: tuple[int, int, int, int] = (1, 2, 2, 1)
    motion: MotionBlockConfig = MotionBlockConfig()

    def __post_init__(self):
        if self.name not in BACKBONES:
            raise ConfigError(
                f"no backbone is called {self.name!r}. {nearest(self.name, BACKBONES)}"
            )
        if self.width < 1 or min(self.temporal_strides) < 1:
            raise ConfigError("width and temporal_strides must be 1 or more")

    def frame_stride(self, stage: str) -> int:
        """Frames of the clip from one frame of this stage's features to the next."""
        return math.prod(self.temporal_strides[: resnet.STAGES.index(stage) + 1])

    def build(self, **options: Any) -> nn.Module:
        """The backbone; `options` are `build_backbone`'s, for example `motion_blocks` or `dtype`."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return build_backbone(**fields, **options)


# name -> what distinguishes it
BACKBONES: dict[str, dict[str, Any]] = {
    **{f"r2d_{depth}": {"depth": depth} for depth in resnet.DEPTHS},
    "r2plus1d_101": {"depth": 101, "temporal_stages": ("res4", "res5")},
}
MOTION_STAGES = ("res2", "res3", "res4")


def build_backbone(
    name: str, *, motion_blocks: bool | tuple[str, ...] = False, **options: Any
) -> nn.Module:
    """Makes a backbone by name.

    Args:
      name: family_depth, for example "r2d_50".
      motion_blocks: the stages after which a prime motion block stands; True: res2, res3 and res4 (HCML 4.1).
      **options: fields of the backbone's module, for example `width` or `motion`.

    Returns:
      A Linen module: `apply(variables, clip [B, T, H, W, 3], train=...) -> (embedding [B, C], features)`.

    Raises:
      ValueError: for an unknown name or stage.
    """
    if name not in BACKBONES:
        raise ValueError(f"no backbone is called {name!r}. {nearest(name, BACKBONES)}")
    if isinstance(motion_blocks, bool):
        motion_blocks = MOTION_STAGES if motion_blocks else ()
    for stage in motion_blocks:
        if stage not in resnet.STAGES:
            raise ValueError(f"no stage is called {stage!r}. {nearest(stage, resnet.STAGES)}")
    return resnet.ResNet(**BACKBONES[name], motion_blocks=tuple(motion_blocks), **options)
