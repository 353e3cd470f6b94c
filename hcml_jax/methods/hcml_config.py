"""The fields of the method "hcml"."""

import dataclasses

from hcml_jax.config import ConfigError, nearest
from hcml_jax.methods.base import Schedule, check_dtype
from hcml_jax.models import BackboneConfig

SUPERVISIONS = ("reconstruction", "contrastive", "action")


@dataclasses.dataclass(frozen=True)
class HCMLConfig:
    """Fields of the method "hcml"; defaults are the paper's, or decided where it is silent.

    Attributes:
      stages: stage name -> schedule: "level0", "level1", ... (or "levels", all at once, when not `progressive`), and
        "joint" where there are labels.
      backbone: which backbone.
      levels: the supervision of each level from the lowest on, "reconstruction", "contrastive" or "action"; fewer
        than three make a shorter hierarchy (HCML Table 1, Figure 3).
      progressive: one level at a time, the lower ones frozen (HCML 3.1), or all at once.
      flow_channels: of the flow head's five convolutions.
      photometric_size: side in pixels at which frames are compared (frames shrink by area); 0: as they come.
      charbonnier_alpha, charbonnier_epsilon: of the penalty of both terms of reconstruction.
      smoothness_weight: zeta.
      normalise_by_valid: divide the photometric term by the valid pixels instead of all.
      prediction_steps: K, how many frames ahead are predicted; at most T - 1 of the level.
      positions: N, spatial positions drawn for each clip; at most those of the level's grid.
      temperature: tau.
      target_gradients: whether gradients also reach the predicted features, where the level below trains too.
      reconstruction_weight: lambda of the joint loss (HCML eq. 4).
      contrastive_weights: gamma^1 and gamma^2 of it.
      joint_batch_norm_group: clips over which joint training takes batch statistics; 0: the global batch.
      flip: whether clips are mirrored at random (a flip changes labels such as "left").
      dtype: what convolutions compute in, "float32" or "bfloat16".
    """

    stages: dict[str, Schedule]
    backbone: BackboneConfig = BackboneConfig()
    levels: tuple[str, ...] = ("reconstruction", "contrastive", "contrastive")
    progressive: bool = True
    flow_channels: tuple[int, ...] = (128, 128, 96, 64, 32)
    photometric_size: int = 0
    charbonnier_alpha: float = 0.45
    charbonnier_epsilon: float = 1e-3
    smoothness_weight: float = 0.02
    normalise_by_valid: bool = False
    prediction_steps: int = 3
    positions: int = 49
    temperature: float = 0.07
    target_gradients: bool = False
    reconstruction_weight: float = 15.0
    contrastive_weights: tuple[float, float] = (0.25, 0.25)
    joint_batch_norm_group: int = 8
    flip: bool = True
    dtype: str = "float32"

    def __post_init__(self):
        check_dtype(self.dtype)
        for name in ("positions", "prediction_steps"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be 1 or more, not {getattr(self, name)}")
        for name in ("photometric_size", "joint_batch_norm_group"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} must be 0 or more, not {getattr(self, name)}")
        if self.temperature <= 0:
            raise ConfigError(f"temperature must be above 0, not {self.temperature}")
        if len(self.flow_channels) != 5 or min(self.flow_channels) < 1:
            raise ConfigError(
                f"flow_channels must be 5 numbers, 1 or more, not {self.flow_channels}"
            )
        if not 1 <= len(self.levels) <= 3:
            raise ConfigError(f"levels must name 1 to 3 supervisions, not {self.levels}")
        for supervision in self.levels:
            if supervision not in SUPERVISIONS:
                raise ConfigError(
                    f"levels: no supervision is called {supervision!r}. "
                    f"{nearest(supervision, SUPERVISIONS)}"
                )
        if self.levels[0] == "contrastive":
            raise ConfigError(
                "levels: level 0 has no level below to predict; use 'reconstruction' or 'action'"
            )
        needed = self.self_supervised_stages
        if set(self.stages) - {"joint"} != set(needed):
            raise ConfigError(
                f"stages must be {needed} and, to use labels, 'joint', not {sorted(self.stages)}"
            )

    @property
    def self_supervised_stages(self) -> tuple[str, ...]:
        """Names of the stages before the joint one, in order."""
        if not self.progressive:
            return ("levels",)
        return tuple(f"level{level}" for level in range(len(self.levels)))

    @property
    def motion_blocks(self) -> tuple[str, ...]:
        """The backbone's stages with a motion block: level l stands after the l-th."""
        return self.backbone.bare.motion_stages[: len(self.levels)]

    def own_modules(self, level: int) -> tuple[str, ...]:
        """The backbone's modules that a level trains: what its features come from and the lower levels' do not."""
        backbone, blocks = self.backbone.bare, self.motion_blocks
        below = backbone.modules_of(blocks[level - 1]) if level else ()
        return tuple(m for m in backbone.modules_of(blocks[level]) if m not in below)
