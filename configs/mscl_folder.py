"""MSCL on any folder of videos, small enough for a laptop; flow is OpenCV's, computed as clips are read.

With a table (DIR/table.csv: path, label, split) its features are evaluated too. To compute flow once, and to start
clips where the motion changes most, see docs/data.md ("Flow that is computed once").

Command:  python launch.py --config configs/mscl_folder.py --workdir runs/mscl_folder --config.data.root=DIR
Cost:     not yet run
Result:   not yet run
"""

from ml_collections import ConfigDict

from configs import hcml_folder, mscl_sprites
from hcml_jax.experiment import complete


def get_config() -> ConfigDict:
    """The experiment."""
    config, folder = mscl_sprites.get_config().to_dict(), hcml_folder.get_config().to_dict()
    config["method"] |= {"backbone": folder["method"]["backbone"], "flip": True, "area": (0.3, 1.0)}
    config["method"]["flow_backbone"] |= {"stem_pool": True}
    config["data"] = folder["data"] | {"short_side": (128, 128), "flow": "dis"}
    config["training"] |= {"validation_split": ""}
    return complete(config)
