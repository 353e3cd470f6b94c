"""MSCL's ablations on Motion Sprites: `python benchmarks/mscl.py --workdir runs/mscl`.

Its Table 1 (losses, one after another, and rotated flow), Table 2 (flow encoder in 2-D or 3-D, the pyramid or one
stage), Table 3 (where clips start, in longer videos), Table 4 (range of the rotation); the source of flow; and, beside
MSCL's 1,000 steps of two clips of 16 videos, the levels of HCML (2,500 steps of 16 clips) and supervision by labels,
with ever new clips (1,000 steps). `benchmarks/arms.py` says how arms are tuned and read.
"""

import functools
import math
import pathlib
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any

import arms
from arms import Ablation, Arm, stages_of
from runs import call

from configs import hcml_sprites, mscl_sprites, supervised_sprites
from data_pipelines.config import SpritesConfig
from data_pipelines.write_sprites import write_sprites
from hcml_jax.config import UserError

NO_TERMS = {"flow_weight": 0.0, "cross_weight": 0.0, "local_weight": 0.0}
# Videos with 16 frames to spare, in which a clip may start where motion changes, or not.
LONGER = mscl_sprites.get_config().to_dict()["data"]["sprites"] | {
    **{"rendered": False, "frames": 32, "zoom": (1.025, 1.035), "closing_speed": (0.7, 1.05)}
}
FLOW_3D = {"name": "resnet3d_10", "width": 8, "stem_pool": False, "temporal_strides": (1, 1, 1, 1)}


def longer(weighting: str, *, moving: bool) -> Callable[[pathlib.Path], Mapping[str, Any]]:
    """Longer videos, whose change of motion is measured by `weighting`; `moving`: clips start where it is large."""

    def prepare(workdir: pathlib.Path) -> Mapping[str, Any]:
        flow = compute_flow(workdir, weighting)
        return {"root": str(workdir / "videos"), "flow": str(flow), "sprites": LONGER, "moving": moving}

    return prepare


@functools.cache
def compute_flow(workdir: pathlib.Path, weighting: str) -> pathlib.Path:
    """Writes the longer videos and their flow, where that has not been done."""
    write_videos(workdir)
    out = workdir / f"flow_{weighting}"
    flags = ["--provider", "truth", "--stride", "1", "--short-side", "0", "--weighting", weighting, "--scale", "12"]
    command = [sys.executable, "-m", "hcml_jax.compute_flow", str(workdir / "videos"), "--out", str(out), *flags]
    if subprocess.run(command, check=False).returncode:
        raise UserError(f"{' '.join(command)} failed")
    return out


@functools.cache
def write_videos(workdir: pathlib.Path) -> None:
    """Writes the longer videos."""
    write_sprites(SpritesConfig(**LONGER), workdir / "videos")


MSCL = functools.partial(Arm, mscl_sprites)
LEVELS = stages_of(hcml_sprites, "level0", "level1", "level2")
LABELS = {"supervised": stages_of(supervised_sprites, "supervised")["supervised"] | {"steps": 1000}}
ALL = "MSCL: and rotated flow"
ARMS: dict[str, Arm] = {
    "MoCo: L_RGB": MSCL(NO_TERMS),
    "and L_Flow": MSCL(NO_TERMS | {"flow_weight": 1.0}),
    "and L_RF": MSCL({"local_weight": 0.0}),
    "L_LMC without L_RF": MSCL({"cross_weight": 0.0, "rotation": None}),
    "and L_LMC": MSCL({"rotation": None}),
    ALL: MSCL(),
    "flow in 3-D": MSCL({"flow_backbone": FLOW_3D}),
    "one stage, no pyramid": MSCL({"local_stages": ("res3",)}),
    "starts: any": MSCL(prepare=longer("none", moving=False)),
    "starts: colours change": MSCL(prepare=longer("none", moving=True)),
    "starts: colours of the foreground change": MSCL(prepare=longer("softmax", moving=True)),
    "rotation pi/2 to 3 pi/2": MSCL({"rotation": (math.pi / 2, 3 * math.pi / 2)}),
    "rotation pi/6 to 11 pi/6": MSCL({"rotation": (math.pi / 6, 11 * math.pi / 6)}),
    "flow by DIS": MSCL(data={"flow": "dis"}),
    "flow by level 0 of HCML": MSCL(data={"flow": "hcml:sprites"}),
    "HCML, level 2": Arm(hcml_sprites, {"stages": LEVELS}, feature="level2"),
    "supervised by all labels": Arm(supervised_sprites, {"stages": LABELS}, {"labels_per_class": 0}),
}
TABLES = {
    "Table 1": ("MoCo: L_RGB", "and L_Flow", "and L_RF", "L_LMC without L_RF", "and L_LMC", ALL),
    "Table 2": ("flow in 3-D", "one stage, no pyramid", ALL),
    "Table 3": ("starts: any", "starts: colours change", "starts: colours of the foreground change"),
    "Table 4": ("and L_LMC", "rotation pi/2 to 3 pi/2", ALL, "rotation pi/6 to 11 pi/6"),
    "which flow": (ALL, "flow by DIS", "flow by level 0 of HCML"),
    "beside": (ALL, "HCML, level 2", "supervised by all labels"),
}
ABLATION = Ablation("mscl", mscl_sprites, ARMS, TABLES)

if __name__ == "__main__":
    call(lambda: arms.main(ABLATION, __doc__))
