"""FIMA's ablations on Motion Sprites: `python benchmarks/fima.py --workdir runs/fima`.

Its Table 1 (losses), Table 2 (the parts of L_Pix: the decoder, the foreground), Table 3 (a: threshold, b: depth of the
decoder, c: its width and heads, d: foreground ratio, e: criterion of the foreground, f: on which side), Tables 7
(width with all losses), 8 (one decoder for both losses or two), 9 (how L_Fra compares) and 10 (negatives of L_Pix);
and, on the same clips, MSCL and the levels of HCML. Tables 2 and 3 are of L_VV and L_Pix, as the paper's.
`benchmarks/arms.py` says how arms are tuned and evaluated; `benchmarks/pixel_contrast.py` measures the cost of L_Pix.
"""

import functools

import arms
from arms import Ablation, Arm, stages_of
from runs import call

from configs import fima_sprites, hcml_sprites, mscl_sprites

FIMA = functools.partial(Arm, fima_sprites)
METHOD = fima_sprites.get_config().to_dict()["method"]
DECODER = METHOD["decoder"]
LEVELS = stages_of(hcml_sprites, "level0", "level1", "level2")


def pixel(**fields) -> Arm:
    """L_VV and L_Pix."""
    return FIMA({"frame_weight": 0.0, **fields})


def decoder(**sizes) -> dict:
    """A decoder of other sizes."""
    return {"decoder": {**DECODER, **sizes}}


PIX, ALL = "L_VV and L_Pix", "FIMA: L_VV, L_Pix and L_Fra"
ARMS: dict[str, Arm] = {
    "MoCo: L_VV": pixel(pixel_weight=0.0),
    "L_VV and L_VD": pixel(pixel_weight=0.0, difference_weight=1.0),
    PIX: pixel(),
    "L_VV and L_Fra": FIMA({"pixel_weight": 0.0}),
    ALL: FIMA(),
    "no decoder, no foreground": pixel(foreground_on=(), **decoder(layers=0)),
    "no decoder": pixel(**decoder(layers=0)),
    "no foreground": pixel(foreground_on=()),
    "threshold 0.35": pixel(threshold=0.35),
    "threshold 1.4": pixel(threshold=1.4),
    "threshold 2.8": pixel(threshold=2.8),
    "1 layer": pixel(**decoder(layers=1)),
    "3 layers": pixel(**decoder(layers=3)),
    "half as wide": pixel(**decoder(width=DECODER["width"] // 2)),
    "8 heads": pixel(**decoder(heads=8)),
    "half as wide, 8 heads": pixel(**decoder(width=DECODER["width"] // 2, heads=8)),
    "half as wide, all losses": FIMA(decoder(width=DECODER["width"] // 2)),
    "background 0.3": pixel(background=0.3),
    "background 0.7": pixel(background=0.7),
    "foreground of frames": pixel(foreground_of=("rgb",)),
    "foreground of differences": pixel(foreground_of=("difference",)),
    "foreground on the side of the prediction": pixel(foreground_on=("prediction",)),
    "foreground on the side of the target": pixel(foreground_on=("target",)),
    "two decoders": FIMA({"shared_decoder": False}),
    "L_Fra: triplet": FIMA({"frame_loss": "triplet"}),
    "L_Fra: MSE": FIMA({"frame_loss": "mse"}),
    "negatives of the clip alone": pixel(pixel_group=1),
    "negatives of the whole batch": pixel(pixel_group=16),
    "negatives of four batches before": pixel(pixel_queue=4 * 2 * 16 * 72),  # 16 clips, 2 x 6 x 6 places, both views
    "projections apart": FIMA({"shared_projection": False}),
    "each half cropped on its own": FIMA({"part_area": (0.3, 1.0)}),
    "differences wrap round": FIMA({"first_difference": "wrap"}),
    "MSCL": Arm(mscl_sprites),
    "HCML, level 2": Arm(hcml_sprites, {"stages": LEVELS}, feature="level2"),
}
TABLES = {
    "Table 1": ("MoCo: L_VV", "L_VV and L_VD", PIX, "L_VV and L_Fra", ALL),
    "Table 2": ("L_VV and L_VD", "no decoder, no foreground", "no decoder", "no foreground", PIX),
    "Table 3a": ("threshold 0.35", PIX, "threshold 1.4", "threshold 2.8"),
    "Table 3b": ("1 layer", PIX, "3 layers"),
    "Table 3c": ("half as wide", "half as wide, 8 heads", PIX, "8 heads"),
    "Table 3d": ("background 0.3", PIX, "background 0.7"),
    "Table 3e": ("foreground of frames", "foreground of differences", PIX),
    "Table 3f": (
        "no foreground",
        "foreground on the side of the prediction",
        "foreground on the side of the target",
        PIX,
    ),
    "Table 7": ("half as wide, all losses", ALL),
    "Table 8": (ALL, "two decoders"),
    "Table 9": (ALL, "L_Fra: triplet", "L_Fra: MSE"),
    "Table 10": (
        "L_VV and L_VD",
        "negatives of the clip alone",
        PIX,
        "negatives of the whole batch",
        "negatives of four batches before",
    ),
    "left open": (ALL, "projections apart", "each half cropped on its own", "differences wrap round"),
    "beside": (ALL, "MSCL", "HCML, level 2"),
}
ABLATION = Ablation("fima", fima_sprites, ARMS, TABLES)

if __name__ == "__main__":
    call(lambda: arms.main(ABLATION, __doc__))
