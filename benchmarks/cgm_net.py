"""CGM-Net's ablations on Motion Sprites: `python benchmarks/cgm_net.py --workdir runs/cgm_net`.

Its Tables 6 and 7 (upsampling that is learnt or not; and learnt without context, which the paper has not), Figure 6
(scales; 16 would leave 3 x 3 places), Table 8 (what tells the action; the backbone alone, which the labels teach as
many steps), and HCML on the same clips. `benchmarks/arms.py` says how arms are tuned and read: here by top-1.
"""

import functools

import arms
from arms import Ablation, Arm, Figure
from runs import call

from configs import cgm_sprites, hcml_sprites, supervised_sprites

CGM = functools.partial(Arm, cgm_sprites)
METHOD = cgm_sprites.get_config().to_dict()["method"]
STEPS = sum(schedule["steps"] for schedule in METHOD["stages"].values())


def maps(**sizes) -> dict:
    """Motion maps of other sizes, or upsampled otherwise."""
    return {"maps": {**METHOD["maps"], **sizes}}


COARSE = {"backbone": METHOD["backbone"] | {"spatial_strides": (1, 2, 2, 1)}}  # 6 x 6 places
LABELS = {"supervised": METHOD["stages"]["joint"] | {"steps": STEPS}}
ALONE = {"backbone": METHOD["backbone"], "motion_blocks": METHOD["motion_blocks"], "stages": LABELS}
ALL = "CGM-Net"
ARMS: dict[str, Arm] = {
    ALL: CGM(),
    "nearest": CGM(maps(upsampling="nearest")),
    "bilinear": CGM(maps(upsampling="bilinear")),
    "learnt without context": CGM(maps(upsampling="learnt")),
    "scale 1": CGM(maps(scale=1, decoder_widths=(32, 32))),
    "scale 2": CGM(maps(scale=2)),
    "scale 8": CGM(maps(scale=8) | COARSE),
    "backbone": CGM({"pipelines": ("backbone",)}),
    "backbone and LR": CGM({"pipelines": ("backbone", "lr")}),
    "backbone and HR": CGM({"pipelines": ("backbone", "hr")}),
    "the same backbone on the labels alone": Arm(supervised_sprites, ALONE),
    "HCML": Arm(hcml_sprites),
}
TABLES = {
    "Tables 6 and 7": ("nearest", "bilinear", "learnt without context", ALL),
    "Figure 6": ("scale 1", "scale 2", ALL, "scale 8"),
    "Table 8": ("the same backbone on the labels alone", "backbone", "backbone and LR", "backbone and HR", ALL),
    "beside": (ALL, "HCML"),
}


def made(part: str, kind: str, unit: float) -> Figure:
    """A measure of the frames that are made."""
    return Figure("prediction", ("prediction", part, kind, "learnt"), unit)


FIGURES = {
    "top-1": Figure("recognition", ("top1",)),
    "l1 of frames seen, thousandths": made("seen", "l1", 1e-3),
    "PSNR, dB": made("seen", "psnr", 1.0),
    "SSIM, %": made("seen", "ssim", 0.01),
    "PSNR of the frame unseen, dB": made("unseen", "psnr", 1.0),
    "SSIM, unseen, %": made("unseen", "ssim", 0.01),
}
ABLATION = Ablation("cgm_net", cgm_sprites, ARMS, TABLES, FIGURES)

if __name__ == "__main__":
    call(lambda: arms.main(ABLATION, __doc__))
