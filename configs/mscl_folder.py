"""MSCL on any folder of videos, small enough for a laptop; flow is OpenCV's, computed as clips are read.

With a table (DIR/table.csv: path, label, split) its features are evaluated too. To compute flow once, and to start
clips where the motion changes most, see docs/data.md ("Flow that is computed once").

Command:  python launch.py --config configs/mscl_folder.py --workdir runs/mscl_folder --config.data.root=DIR
Cost:     not yet run
Result:   not yet run
"""

from ml_collections import ConfigDict

from configs import mscl_sprites
from hcml_jax.experiment import complete


def get_config() -> ConfigDict:
    """The experiment."""
    config = mscl_sprites.get_config().to_dict()
    config["method"] |= {"flip": True, "area": (0.3, 1.0)}
    config["method"]["backbone"]["motion"] |= {"max_displacement": 6, "stride": 2}
    config["method"]["flow_backbone"] |= {"stem_pool": True}
    config["data"] = {
        "root": "",
        "frames": 16,
        "stride": 2,
        "jitter": True,
        "short_clips": "loop",
        "short_side": (128, 128),
        "crop": 112,
        "flow": "dis",
        "skip_bad": True,
    }
    config["training"] |= {"validation_split": ""}
    return complete(config)
