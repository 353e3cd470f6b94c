"""HCML on large Motion Sprites, rendered as they are read: the levels that `hcml_jax.load("sprites")` gives.

No video is read and none is written. A shape moves, turns, grows or meets another over a background that a camera
moves, turns and zooms across; the network is that of hcml_folder.py, which can begin with these weights.

Command:  python launch.py --config configs/hcml_sprites_large.py --workdir runs/sprites_large
Cost:     6 minutes on an H200 beside 13 other runs; 2 1/4 hours on 2 cores, estimated from the first steps of a stage
Result:   right time 0.43 at level 1 (chance 0.125), 0.69 at level 2 (0.25); end-point error 0.37 px (zero 0.81); on
          UT-Interaction, which it has not seen, maps pooled to 3x3: kNN 0.63, 0.63, 0.65 from level 0 to 2, linear
          0.75, 0.75, 0.68 (frame differences 0.53, 0.58); hcml_jax/weights/sprites/README.md has the rest
"""

from ml_collections import ConfigDict

from configs import hcml_sprites
from hcml_jax.experiment import complete


def get_config() -> ConfigDict:
    """The experiment."""
    config = hcml_sprites.get_config().to_dict()
    method = config["method"]
    method["backbone"]["motion"] |= {"max_displacement": 6, "stride": 2}
    method |= {"photometric_size": 56, "flip": True}
    method["stages"] = {
        "level0": method["stages"]["level0"] | {"steps": 1200},
        "level1": method["stages"]["level1"],
        "level2": method["stages"]["level2"],
    }
    config["data"] |= {
        "root": "",
        "sprites": {
            "rendered": True,
            "size": 128,
            "frames": 24,
            "train_per_class": 100,
            "radius": (14.0, 26.0),
            "pair_radius": (10.0, 18.0),
            "wavelength": (6.0, 48.0),
            "waves": 8,
            "sharpness": 2.0,
            "speed": (0.5, 5.0),
            "rotation": (0.03, 0.2),
            "zoom": (1.01, 1.04),
            "closing_speed": (0.5, 3.5),
            "background_speed": 1.0,
            "background_turn": 0.01,
            "background_growth": 0.01,
        },
        "frames": 16,
        "jitter": True,
        "short_side": (112, 144),
        "crop": 112,
        "labels_per_class": 0,
    }
    config["evaluation"] |= {"protocols": ("flow", "neighbours", "linear"), "baselines": ()}
    return complete(config)
