"""HCML on any folder of videos, small enough for a laptop.

With a table (DIR/table.csv: path, label, split) all stages run; without one, or without labels, the
self-supervised stages alone. Frames are compared at 56 pixels: sharp texture makes small motion hard to learn.

Command:  python launch.py --config configs/hcml_folder.py --workdir runs/folder --config.data.root=DIR
Cost:     1 3/4 hours on 2 cores without labels, estimated from a part of the steps
Result:   learnt from UT-Interaction without labels (benchmarks/ut_interaction.py), then one sequence of ten left out,
          maps pooled to 3x3: kNN 0.70, 0.72, 0.67 from level 0 to 2,
          linear 0.77, 0.75, 0.77 (frame differences 0.53, 0.58; chance 0.17); docs/results.md has the tables
"""

from ml_collections import ConfigDict

from configs import hcml_sprites
from hcml_jax.experiment import complete


def get_config() -> ConfigDict:
    """The experiment."""
    config = hcml_sprites.get_config().to_dict()
    config["method"] |= {"photometric_size": 56, "flip": True}
    config["method"]["backbone"]["motion"] |= {"max_displacement": 6, "stride": 2}
    config["data"] = {
        "root": "",
        "frames": 16,
        "stride": 2,
        "jitter": True,
        "short_clips": "loop",
        "short_side": (120, 144),
        "crop": 112,
        "skip_bad": True,
    }
    config["training"] |= {"batch_size": 8, "validation_split": ""}
    return complete(config)
