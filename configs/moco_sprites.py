"""MoCo on rendered Motion Sprites: the baseline of MSCL, its loss on frames alone (Table 1, first row).

Command:  python launch.py --config configs/moco_sprites.py --workdir runs/moco_sprites
Cost:     some 15 minutes on 2 cores, 5 of them evaluation; pieced together from a run beside other work
Result:   kNN 8.2, linear probe 6.8, R@1 8.2: chance (seed 0, not tuned); docs/results.md says why
"""

from ml_collections import ConfigDict

from configs import mscl_sprites
from hcml_jax.experiment import complete


def get_config() -> ConfigDict:
    """The experiment."""
    config = mscl_sprites.get_config().to_dict()
    config["method"] |= {"flow_weight": 0.0, "cross_weight": 0.0, "local_weight": 0.0}
    return complete(config)
