"""CGM-Net on any folder of videos, small enough for a laptop; no labels.

With a table (DIR/table.csv: path, label, split) motion and action are learnt together afterwards. Clips have 8 frames
and context half the channels of `cgm_sprites.py`: most of a step is the convolution that gives filters of each pixel.

Command:  python launch.py --config configs/cgm_folder.py --workdir runs/cgm_folder --config.data.root=DIR
Cost:     not yet run
Result:   not yet run
"""

from ml_collections import ConfigDict

from configs import cgm_sprites, hcml_folder
from hcml_jax.experiment import complete


def get_config() -> ConfigDict:
    """The experiment."""
    config = cgm_sprites.get_config().to_dict()
    config["method"]["flip"] = True
    config["method"]["context"]["width"] = 8
    config["data"] = hcml_folder.get_config().to_dict()["data"] | {"frames": 8, "stride": 1}
    config["training"]["validation_split"] = ""
    return complete(config)
