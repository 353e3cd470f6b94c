"""Retrieval on UCF-101 by a network that was trained elsewhere, unchanged: test clips retrieve training clips.

The config's argument is "mscl" (MSCL Table 8: R@1 63.7 from Kinetics-400, 65.6 from UCF-101), "coclr" for its S3D
(63.2 from UCF-101), "fima" or "fima_i3d" (FIMA Table 6: 52.2 with R(2+1)D-18, 54.0 with I3D, from UCF-101). Features
are means over ten clips, as in CoCLR, whose protocol MSCL refers to. Without HCML's motion blocks in the S3D:
`'--config.method.motion_blocks=()'`.

Command:  python launch.py --config configs/retrieval_ucf101.py:mscl --workdir runs/retrieval --mode=evaluate \\
              --config.data.root=/data/ucf101_split1 --config.init_from.path=runs/kinetics
Cost:     not yet run
Result:   not yet run
"""

from ml_collections import ConfigDict

from configs import finetune_ucf101
from hcml_jax.experiment import complete

PAPERS = ("mscl", "coclr", "fima", "fima_i3d")


def get_config(paper: str = "mscl") -> ConfigDict:
    """The experiment, on the clips of `paper`."""
    config = finetune_ucf101.get_config(paper).to_dict()
    config["evaluation"] |= {"protocols": ("retrieval",), "readouts": (), "recall_at": (1, 5, 10), "views": ("10x1",)}
    return complete(config)
