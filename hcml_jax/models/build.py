"""Backbones by name."""

import dataclasses
import functools
from typing import Any

from hcml_jax.config import ConfigError, nearest
from hcml_jax.models.backbone import Backbone
from hcml_jax.models.c3d import C3D
from hcml_jax.models.inception import Inception
from hcml_jax.models.motion_block import MotionBlockConfig
from hcml_jax.models.resnet import DEPTHS, ResNet
from hcml_jax.models.slowfast import SlowFast

Color = tuple[float, float, float]  # red, green, blue
Normalisation = tuple[Color, Color]  # mean and standard deviation in [0, 1]

HCML_STRIDES = {"temporal_strides": (1, 2, 2, 1)}  # in time, of res2 ... res5
TRAN = {"stem_kernel": (3, 7, 7), "stem_pool": False, "temporal_strides": (1, 2, 2, 2)}
HARA = {"conv": "3d", "stem_kernel": (7, 7, 7), "pool_window": (3, 3, 3), "temporal_strides": (1, 2, 2, 2)}
# name -> its class, and what distinguishes it
BACKBONES: dict[str, tuple[type[Backbone], dict[str, Any]]] = {
    # 2-D networks on each frame; with temporal strides, as HCML has them
    **{f"resnet_{depth}": (ResNet, {"depth": depth}) for depth in DEPTHS},
    **{f"r2d_{depth}": (ResNet, {"depth": depth, **HCML_STRIDES}) for depth in DEPTHS},
    "r2plus1d_101": (ResNet, {"depth": 101, "temporal_stages": ("res4", "res5"), **HCML_STRIDES}),
    # Tran et al. (2018), as torchvision has them
    "r3d_18": (ResNet, {"depth": 18, "conv": "3d", **TRAN}),
    "r2plus1d_18": (ResNet, {"depth": 18, "conv": "2plus1d", **TRAN}),
    # Hara et al. (2018); their first weights of depths 18 and 34 have shortcuts without parameters
    **{f"resnet3d_{depth}": (ResNet, {"depth": depth, **HARA}) for depth in DEPTHS},
    **{f"resnet3d_{depth}_a": (ResNet, {"depth": depth, "padded_shortcut": True, **HARA}) for depth in (18, 34)},
    "resnext3d_101": (ResNet, {"depth": 101, "groups": 32, **HARA}),
    "i3d": (Inception, {}),
    "s3d": (Inception, {"factorised": True}),
    # frames x stride of the slow pathway
    "slowfast_r50_4x16": (SlowFast, {"alpha": 8, "lateral_kernel": 5}),
    "slowfast_r50_8x8": (SlowFast, {}),
    "slowfast_r101_16x8": (SlowFast, {"depth": 101, "lateral_kernel": 5}),
    "c3d": (C3D, {}),
}


@dataclasses.dataclass(frozen=True)
class BackboneConfig:
    """Which backbone, and its options.

    Attributes:
      name: one of `BACKBONES`.
      width: channels of a residual network's stem and first stage; 0: as published.
      stem_pool: False leaves out the pool behind the stem of a `ResNet`.
      temporal_strides, spatial_strides: of res2 ... res5 of a `ResNet`; (): as published.
      motion: sizes of the motion blocks, where the method has any.
      mean, std: of red, green and blue in `[0, 1]`, for normalising clips: those that the initial weights were trained
        with.
    """

    name: str = "r2d_50"
    width: int = 0
    stem_pool: bool = True
    temporal_strides: tuple[int, ...] = ()
    spatial_strides: tuple[int, ...] = ()
    motion: MotionBlockConfig = MotionBlockConfig()
    # what video codebases use for Kinetics
    mean: Color = (0.45, 0.45, 0.45)
    std: Color = (0.225, 0.225, 0.225)

    def __post_init__(self):
        if self.name not in BACKBONES:
            raise ConfigError(f"no backbone is called {self.name!r}. {nearest(self.name, BACKBONES)}")
        family, _ = BACKBONES[self.name]
        known = {field.name for field in dataclasses.fields(family)}
        for option in self._options():
            if option not in known:
                raise ConfigError(f"the backbone {self.name!r} has no option {option}")
        if min(self.std) <= 0:
            raise ConfigError(f"std must be above 0, not {self.std}")
        if self.width < 0:
            raise ConfigError(f"width must be 1 or more (0: as published), not {self.width}")
        for field in ("temporal_strides", "spatial_strides"):
            strides = getattr(self, field)
            if strides and (len(strides) != 4 or min(strides) < 1):
                raise ConfigError(f"{field} must be four numbers, 1 or more (none: as published), not {strides}")

    @functools.cached_property
    def bare(self) -> Backbone:
        """The backbone without motion blocks, to read what it is like."""
        return self.build()

    @property
    def stages(self) -> tuple[str, ...]:
        """Names of its stages, lowest first; a motion block can stand after any."""
        return self.bare.stages

    def build(self, **options: Any) -> Backbone:
        """The backbone; `options` are `build_backbone`'s, for example `motion_blocks` or `dtype`."""
        return build_backbone(self.name, motion=self.motion, **self._options(), **options)

    def _options(self) -> dict[str, Any]:
        options = {}
        if self.width:
            options["width"] = self.width
        if not self.stem_pool:
            options["stem_pool"] = False
        for field in ("temporal_strides", "spatial_strides"):
            if strides := getattr(self, field):
                options[field] = strides
        return options


def build_backbone(name: str, *, motion_blocks: bool | tuple[str, ...] = False, **options: Any) -> Backbone:
    """Makes a backbone by name.

    Args:
      name: one of `BACKBONES`, for example "r2d_50".
      motion_blocks: the stages after which a prime motion block stands; True: the three of its family where HCML's
        levels stand (res2, res3 and res4 in residual networks, HCML 4.1).
      **options: fields of the backbone's module, for example `width` or `motion`.

    Returns:
      A Linen module: `apply(variables, clip [B, T, H, W, 3], train=...) -> (embedding [B, C], features)`; its
      `feature_spec` says what the features are like.

    Raises:
      ValueError: for an unknown name or stage, or stages that are not in order.
    """
    if name not in BACKBONES:
        raise ValueError(f"no backbone is called {name!r}. {nearest(name, BACKBONES)}")
    family, distinguishing = BACKBONES[name]
    if isinstance(motion_blocks, bool):
        motion_blocks = family.motion_stages if motion_blocks else ()
    backbone = family(**{**distinguishing, **options}, motion_blocks=tuple(motion_blocks))
    for stage in motion_blocks:
        if stage not in backbone.stages:
            raise ValueError(f"no stage is called {stage!r}. {nearest(stage, backbone.stages)}")
    if list(motion_blocks) != [stage for stage in backbone.stages if stage in motion_blocks]:
        raise ValueError(f"motion_blocks must be in the order of the stages: {motion_blocks}")
    return backbone
