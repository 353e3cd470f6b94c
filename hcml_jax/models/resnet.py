"""Residual networks for clips: 2-D on each frame, 3-D, and (2+1)-D.

ResNet (He et al., 2016), R2D and top-heavy R(2+1)D (HCML, supplement Table 8), R3D and R(2+1)D (Tran et al., 2018), 3D
ResNets and ResNeXt (Hara et al., 2018).
"""

from collections.abc import Callable
from typing import ClassVar

import jax

from hcml_jax.models.backbone import Backbone, FeatureSpec, stacked_strides
from hcml_jax.models.layers import ConvNorm, FactorisedConvNorm, Train
from hcml_jax.models.pool import max_pool
from hcml_jax.models.residual import ConvKind, Stage

STAGES = ("res2", "res3", "res4", "res5")
# depth -> (blocks of each stage, whether blocks are bottlenecks)
DEPTHS = {
    10: ((1, 1, 1, 1), False),
    18: ((2, 2, 2, 2), False),
    34: ((3, 4, 6, 3), False),
    50: ((3, 4, 6, 3), True),
    101: ((3, 4, 23, 3), True),
    152: ((3, 8, 36, 3), True),
}


class ResNet(Backbone):
    """A residual network of any depth and width.

    Attributes:
      depth: one of `DEPTHS`.
      conv: which convolution takes the place of the 2-D network's 3x3: "2d" (1x3x3), "3d" (3x3x3) or "2plus1d" (1x3x3
        and 3x1x1, with as many parameters as 3x3x3).
      stem_kernel: of the stem's convolution; "2plus1d" uses 1x7x7 and 3x1x1 instead.
      pool_window: of the max-pool of stride 2 after the stem; its stride in time is 2 only where its window there is 3.
      stem_pool: whether there is one (off for small frames, and in R3D and R(2+1)D).
      temporal_strides: of res2 ... res5; HCML halves time at res3 and at res4.
      spatial_strides: likewise, of height and width.
      temporal_stages: stages of bottlenecks with a 3x1x1 convolution before their 1x3x3: HCML's R(2+1)D.
      width: channels of the stem and of the first stage.
      groups: of the bottlenecks' 3x3 convolution; above 1 (ResNeXt) it has twice the channels, and a block's
        output has twice as many again instead of four times.
      last: the last stage, whose features are embedded.
      padded_shortcut: where a shortcut changes shape, it subsamples and adds channels of zeros ("type A") instead of
        projecting.
    """

    motion_stages: ClassVar = ("res2", "res3", "res4")

    depth: int = 50
    conv: ConvKind = "2d"
    stem_kernel: tuple[int, int, int] = (1, 7, 7)
    pool_window: tuple[int, int, int] = (1, 3, 3)
    stem_pool: bool = True
    temporal_strides: tuple[int, int, int, int] = (1, 1, 1, 1)
    spatial_strides: tuple[int, int, int, int] = (1, 2, 2, 2)
    temporal_stages: tuple[str, ...] = ()
    width: int = 64
    groups: int = 1
    last: str = "res5"
    padded_shortcut: bool = False

    def __post_init__(self):
        if self.groups > 1 and not DEPTHS[self.depth][1]:
            raise ValueError(f"groups are for bottlenecks: not for a depth of {self.depth}")
        if self.last not in STAGES:
            raise ValueError(f"last: expected one of {', '.join(STAGES)}, found {self.last!r}")
        super().__post_init__()

    @property
    def stage_specs(self) -> dict[str, FeatureSpec]:
        """ "stem", "res2" ... "res5"."""
        pool = self._pool_strides() if self.stem_pool else (1, 1, 1)
        stem = (pool[0], 2 * pool[1], 2 * pool[2])
        stages = STAGES[: STAGES.index(self.last) + 1]
        strides = stacked_strides([stem, *map(self._strides, stages)])
        bottleneck = DEPTHS[self.depth][1]
        channels = [self.width] + [
            self.width * 2**number * (4 if bottleneck or name in self.temporal_stages else 1)
            for number, name in enumerate(stages)
        ]
        specs = zip(("stem", *stages), channels, strides, strict=True)
        return {name: FeatureSpec(c, s) for name, c, s in specs}

    def stage(self, name: str) -> Callable[[jax.Array, Train], jax.Array]:
        """The module of a stage."""
        if name == "stem":
            return self._stem()
        blocks, bottleneck = DEPTHS[self.depth]
        number = STAGES.index(name)
        return Stage(
            blocks=blocks[number],
            bottleneck=bottleneck,
            features=self.width * 2**number * (2 if self.groups > 1 else 1),
            strides=self._strides(name),
            conv=self.conv,
            temporal=name in self.temporal_stages,
            groups=self.groups,
            padded_shortcut=self.padded_shortcut,
            dtype=self.dtype,
            name=name,
        )

    def _stem(self):
        options = {"dtype": self.dtype, "name": "stem"}
        if self.conv == "2plus1d":
            middle = self.width * 45 // 64  # as published
            conv = FactorisedConvNorm(self.width, (3, 7), (1, 2), middle, **options)
        else:
            conv = ConvNorm(self.width, self.stem_kernel, (1, 2, 2), **options)
        if not self.stem_pool:
            return conv
        window, strides = self.pool_window, self._pool_strides()
        return lambda x, train: max_pool(conv(x, train), window, strides)

    def _strides(self, name: str) -> tuple[int, int, int]:
        number = STAGES.index(name)
        spatial = self.spatial_strides[number]
        return (self.temporal_strides[number], spatial, spatial)

    def _pool_strides(self) -> tuple[int, int, int]:
        return tuple(min(k, 2) for k in self.pool_window)
