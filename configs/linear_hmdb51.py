"""Linear training on HMDB51: as `linear_ucf101.py`.

The config's argument is "mscl" (MSCL Table 6: 56.5 from Kinetics-400), "fima" or "fima_i3d" (FIMA Table 4: 45.5 and
47.3 from Kinetics-400; 41.1 and 42.8 from UCF-101).

Command:  python launch.py --config configs/linear_hmdb51.py:mscl --workdir runs/linear \\
              --config.data.root=/data/hmdb51_split1 --config.init_from.path=runs/kinetics
Cost:     not yet run
Result:   not yet run
"""

from ml_collections import ConfigDict

from configs import linear_ucf101
from hcml_jax.experiment import complete

PAPERS = linear_ucf101.PAPERS


def get_config(paper: str = "mscl") -> ConfigDict:
    """The experiment, by the schedule of `paper`."""
    config = linear_ucf101.get_config(paper).to_dict()
    config["data"]["root"] = "data/hmdb51"
    return complete(config)
