"""FIMA on any folder of videos, small enough for a laptop; no flow, no labels.

Clips are the 16 frames of `mscl_folder.py`, two apart; the network gets every second one, the halves of L_Fra get all.
With a table (DIR/table.csv: path, label, split) its features are evaluated too.

Command:  python launch.py --config configs/fima_folder.py --workdir runs/fima_folder --config.data.root=DIR
Cost:     not yet run
Result:   not yet run
"""

from ml_collections import ConfigDict

from configs import fima_sprites, mscl_folder
from hcml_jax.experiment import complete


def get_config() -> ConfigDict:
    """The experiment."""
    config, folder = fima_sprites.get_config().to_dict(), mscl_folder.get_config().to_dict()
    config["method"] |= {name: folder["method"][name] for name in ("backbone", "flip", "area")}
    config["data"] = folder["data"] | {"flow": "truth"}  # not read
    config["training"] = folder["training"]
    return complete(config)
