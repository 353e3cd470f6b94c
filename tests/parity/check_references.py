"""Holds `references.py` to the code that it stands for, in checkouts of it:

python -m tests.parity.check_references [--pytorch-i3d DIR] [--kinetics-i3d DIR] [--resnets DIR] [--slowfast DIR]

The checkouts are of piergiaj/pytorch-i3d, hassony2/kinetics_i3d_pytorch, kenshohara/3D-ResNets-PyTorch and
facebookresearch/SlowFast. Weights are random, loaded strictly. Prints how far scores are apart, relatively, and fails
above 1e-5.
"""

import argparse
import importlib
import pathlib
import sys
import types
from collections.abc import Iterator

import jax.numpy as jnp
import numpy as np
import torch

from hcml_jax.models import build_backbone
from hcml_jax.weights.import_weights import convert
from tests.parity import references
from tests.parity.pair import distance, randomise


def main() -> None:
    """Compares with each checkout that is given."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in CHECKS:
        parser.add_argument(f"--{name}", type=pathlib.Path, help="a checkout")
    options = vars(parser.parse_args())
    given = {name: options[name.replace("-", "_")] for name in CHECKS}
    if not any(given.values()):
        parser.error("name a checkout")
    torch.manual_seed(0)
    for name, checkout in given.items():
        for what, off in CHECKS[name](checkout) if checkout else ():
            print(f"{what}: {off:.0e}", flush=True)
            if not off < 1e-5:
                sys.exit("that is too far")


def pytorch_i3d(checkout: pathlib.Path) -> Iterator[tuple[str, float]]:
    """I3D, also where sizes do not divide."""
    theirs = _import("pytorch_i3d", checkout).InceptionI3d(400)
    for shape in ((2, 3, 16, 224, 224), (1, 3, 19, 230, 224)):
        off = _compare(theirs, references.I3D(), torch.randn(shape), lambda y: y.flatten(2).mean(2))
        yield f"pytorch-i3d {shape}", off


def kinetics_i3d(checkout: pathlib.Path) -> Iterator[tuple[str, float]]:
    """I3D under the names of another port, imported here: ours against its."""
    theirs = _prepare(_import("i3dpt", checkout / "src").I3D(400))
    imported = convert({k: v.numpy().copy() for k, v in theirs.state_dict().items()}, "i3d")
    clip = np.random.default_rng(0).normal(size=(1, 16, 224, 224, 3)).astype(np.float32)
    variables = {name: tree["backbone"] for name, tree in imported.variables.items()}
    embedding, _ = build_backbone("i3d").apply(variables, jnp.asarray(clip), False)
    logits = imported.variables["params"]["classifier"]["logits"]
    with torch.no_grad():
        expected = theirs(torch.from_numpy(np.moveaxis(clip, -1, 1).copy()))[1].numpy()
    scores = np.asarray(embedding) @ logits["kernel"] + logits["bias"]
    yield "kinetics_i3d_pytorch", distance(scores, expected)


def resnets(checkout: pathlib.Path) -> Iterator[tuple[str, float]]:
    """3D ResNets with both kinds of shortcuts, and of bottlenecks."""
    generate = _import("resnet", checkout / "models").generate_model
    for depth, options, ours in (
        (18, {}, references.ResNet3D((2, 2, 2, 2))),
        (18, {"shortcut_type": "A"}, references.ResNet3D((2, 2, 2, 2), padded=True)),
        (50, {}, references.ResNet3D((3, 4, 6, 3), True)),
    ):
        clip = torch.randn(2, 3, 16, 112, 112)
        off = _compare(generate(depth, **options), ours, clip)
        yield f"3D-ResNets-PyTorch {depth} {options or ''}", off


def slowfast(checkout: pathlib.Path) -> Iterator[tuple[str, float]]:
    """SlowFast by PySlowFast's configs of Kinetics."""
    _stand_in_for_what_slowfast_does_not_need(checkout)
    defaults = importlib.import_module("slowfast.config.defaults")
    builder = importlib.import_module("slowfast.models.video_model_builder")
    for name, ours in (
        ("SLOWFAST_8x8_R50", references.SlowFast((3, 4, 6, 3), 4, 7)),
        ("SLOWFAST_4x16_R50", references.SlowFast((3, 4, 6, 3), 8, 5)),
        ("SLOWFAST_16x8_R101_50_50", references.SlowFast((3, 4, 23, 3), 4, 5)),
    ):
        config = defaults.get_cfg()
        config.merge_from_file(str(checkout / "configs" / "Kinetics" / "c2" / f"{name}.yaml"))
        config.NUM_GPUS = 0
        theirs = builder.SlowFast(config)
        theirs.head.act = torch.nn.Identity()
        frames, alpha = config.DATA.NUM_FRAMES, config.SLOWFAST.ALPHA
        slow = torch.linspace(0, frames - 1, frames // alpha).long()
        clip = torch.randn(1, 3, frames, 224, 224)
        off = _compare(theirs, ours, clip, deal=lambda x, slow=slow: [x[:, :, slow], x])
        yield f"PySlowFast {name}", off


CHECKS = {"pytorch-i3d": pytorch_i3d, "kinetics-i3d": kinetics_i3d, "resnets": resnets, "slowfast": slowfast}


def _import(name: str, folder: pathlib.Path):
    sys.path.insert(0, str(folder))
    return importlib.import_module(name)


def _prepare(network: torch.nn.Module) -> torch.nn.Module:
    for module in network.modules():
        randomise(module, bias=0)
    return network.eval()


def _compare(theirs, ours, clip, scores=lambda y: y, deal=lambda x: x) -> float:
    """How far scores are apart, with theirs' weights in both."""
    ours.load_state_dict(_prepare(theirs).state_dict(), strict=True)
    with torch.no_grad():
        expected = scores(theirs(deal(clip))).flatten(1)
        return distance(ours.eval()(clip).numpy(), expected.numpy())


def _stand_in_for_what_slowfast_does_not_need(checkout: pathlib.Path) -> None:
    """Detection, its other models, and functions that pytorchvideo no longer has."""
    sys.path.insert(0, str(checkout))
    for name in ("detectron2", "detectron2.layers"):
        sys.modules[name] = types.ModuleType(name)
        sys.modules[name].ROIAlign = None
    models = types.ModuleType("slowfast.models")
    models.__path__ = [str(checkout / "slowfast" / "models")]
    sys.modules["slowfast.models"] = models
    distributed = importlib.import_module("pytorchvideo.layers.distributed")
    for name in (
        "cat_all_gather",
        "get_local_process_group",
        "get_local_rank",
        "get_local_size",
        "get_world_size",
        "init_distributed_training",
    ):
        setattr(distributed, name, getattr(distributed, name, None))


if __name__ == "__main__":
    main()
