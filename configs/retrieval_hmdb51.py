"""Retrieval on HMDB51 by a network that was trained elsewhere, as it is: as `retrieval_ucf101.py`.

The config's argument is "mscl" (MSCL Table 8: R@1 32.6 from Kinetics-400, 28.9 from UCF-101), "coclr" for its S3D
(25.8 from UCF-101), "fima" or "fima_i3d" (FIMA Table 6: 24.2 and 24.5, from UCF-101).

Command:  python launch.py --config configs/retrieval_hmdb51.py:mscl --workdir runs/retrieval --mode=evaluate \\
              --config.data.root=/data/hmdb51_split1 --config.init_from.path=runs/kinetics
Cost:     not yet run
Result:   not yet run
"""

from ml_collections import ConfigDict

from configs import retrieval_ucf101
from hcml_jax.experiment import complete

PAPERS = retrieval_ucf101.PAPERS


def get_config(paper: str = "mscl") -> ConfigDict:
    """The experiment, on the clips of `paper`."""
    config = retrieval_ucf101.get_config(paper).to_dict()
    config["data"]["root"] = "data/hmdb51"
    return complete(config)
