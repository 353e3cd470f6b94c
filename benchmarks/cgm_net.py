"""CGM-Net's ablations on Motion Sprites: `python benchmarks/cgm_net.py --workdir runs/cgm_net`.

Its Tables 6 and 7 (upsampling that is learnt or not; and the same layer with motion features instead of context, which
is not in the paper), Figure 6 (scales; maps are no coarser than the features they are decoded from, so 8 and 16 need a
backbone of fewer rows and columns, which is run with scale 4, too), Table 8 (the same network with several choices of
pipelines; the same backbone on the labels alone, in as many steps), sizes of filters, which the paper leaves open, and
HCML on the same clips. `benchmarks/arms.py` says how arms are tuned and evaluated: here the rates of both stages are
chosen by top-1, even if frames are reported. Frames are predicted by the network as the stage "motion" leaves it; those
of HCML by the flow of its level 0.
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


def places(strides, steps: int, **sizes) -> dict:
    """A backbone of fewer rows and columns, and a decoder of so many steps from there."""
    backbone = METHOD["backbone"] | {"spatial_strides": strides}
    return {"backbone": backbone} | maps(decoder_widths=(32,) * steps, **sizes)


SIX, THREE = (1, 2, 2, 1), (1, 2, 2, 2)  # strides to 6 x 6 and 3 x 3 places
# As in the paper: maps at the frames' own resolution are only decoded, not upsampled.
OWN = maps(scale=1, upsampling="none", decoder_widths=(32, 32), lr_strides=METHOD["maps"]["hr_strides"])
LABELS = {"supervised": METHOD["stages"]["joint"] | {"steps": STEPS, "learning_rate": 1e-2}}  # tried up to 3e-2
ALONE = {"backbone": METHOD["backbone"], "motion_blocks": METHOD["motion_blocks"], "stages": LABELS}
ALL = "CGM-Net"
ARMS: dict[str, Arm] = {
    ALL: CGM(),
    "nearest": CGM(maps(upsampling="nearest")),
    "bilinear": CGM(maps(upsampling="bilinear")),
    "learnt without context": CGM(maps(upsampling="learnt")),
    "scale 1": CGM(OWN | {"pipelines": ("backbone", "lr")}),
    "scale 2": CGM(maps(scale=2)),
    "scale 4 of 6 x 6 places": CGM(places(SIX, 1)),
    "scale 8 of 6 x 6 places": CGM(places(SIX, 1, scale=8)),
    "scale 4 of 3 x 3 places": CGM(places(THREE, 2)),
    "scale 16 of 3 x 3 places": CGM(places(THREE, 1, scale=16)),
    "backbone": CGM({"inference": ("backbone",)}, read_of=ALL),
    "backbone and LR": CGM({"inference": ("backbone", "lr")}, read_of=ALL),
    "backbone and HR": CGM({"inference": ("backbone", "hr")}, read_of=ALL),
    "the same backbone on the labels alone": Arm(supervised_sprites, ALONE),
    "filters of 3 and 5": CGM(maps(upsampled_filter_size=5)),
    "filters of 3 and 9": CGM(maps(upsampled_filter_size=9)),
    "filters of 5 and 7": CGM(maps(filter_size=5)),
    "HCML": Arm(hcml_sprites, maker="level0, flow"),
}
TABLES = {
    "Tables 6 and 7": ("nearest", "bilinear", "learnt without context", ALL),
    "Figure 6": (
        *("scale 1", "scale 2", ALL, "scale 4 of 6 x 6 places", "scale 8 of 6 x 6 places"),
        *("scale 4 of 3 x 3 places", "scale 16 of 3 x 3 places"),
    ),
    "Table 8": ("the same backbone on the labels alone", "backbone", "backbone and LR", "backbone and HR", ALL),
    "left open": ("filters of 3 and 5", ALL, "filters of 3 and 9", "filters of 5 and 7"),
    "beside": (ALL, "HCML"),
}


def made(part: str, kind: str, unit: float, maker: str = "{maker}") -> Figure:
    """A measure of the frames that the arm makes, or another maker."""
    return Figure("prediction", ("prediction", part, kind, maker), unit)


FIGURES = {
    "top-1": Figure("recognition", ("top1",)),
    "l1 of frames seen, thousandths": made("seen", "l1", 1e-3),
    "PSNR, dB": made("seen", "psnr", 1.0),
    "SSIM, %": made("seen", "ssim", 0.01),
    "PSNR of its flow, dB": made("seen", "psnr", 1.0, "motion, flow"),
    "PSNR of copies, dB": made("seen", "psnr", 1.0, "copying"),
    "PSNR of the frame unseen, dB": made("unseen", "psnr", 1.0),
    "SSIM, unseen, %": made("unseen", "ssim", 0.01),
    "PSNR of copies, unseen, dB": made("unseen", "psnr", 1.0, "copying"),
}
ABLATION = Ablation("cgm_net", cgm_sprites, ARMS, TABLES, FIGURES)

if __name__ == "__main__":
    call(lambda: arms.main(ABLATION, __doc__))
