"""Prints the table of docs/backbones.md: `python benchmarks/backbone_table.py [--parity]`.

Parameters (without the classifier), multiply-adds at the clips that the papers use, output shapes, sources of weights,
and, with --parity, how far scores are from PyTorch's with the same weights (needs PyTorch: `make test-parity`).
"""

import argparse

import jax
import jax.numpy as jnp

from hcml_jax.models import build_backbone
from hcml_jax.models.cost import multiply_adds
from hcml_jax.weights.published import published_layouts

# backbone -> frames and side of the clips that its paper counts for, or that the papers here use
CLIPS = {
    "r2d_50": (16, 256),
    "r2plus1d_101": (32, 256),
    "resnet_18": (1, 224),
    "resnet_50": (1, 224),
    "r3d_18": (16, 112),
    "r2plus1d_18": (16, 112),
    "s3d": (16, 224),
    "i3d": (16, 224),
    "resnet3d_18": (16, 112),
    "resnet3d_34": (16, 112),
    "resnet3d_50": (16, 112),
    "resnet3d_101": (16, 112),
    "resnext3d_101": (16, 112),
    "slowfast_r50_4x16": (32, 224),
    "slowfast_r50_8x8": (32, 224),
    "slowfast_r101_16x8": (64, 224),
    "c3d": (16, 112),
}


PARITY = (
    ("scores", "float32"),
    ("training scores", "float32"),
    ("training scores", "float64"),
    ("training gradient", "float64"),
)


def row(name: str) -> list[str]:
    """Parameters, multiply-adds, outcome and source of a backbone."""
    frames, side = CLIPS[name]
    clip = jax.ShapeDtypeStruct((1, frames, side, side, 3), jnp.float32)
    model = build_backbone(name)
    (embedding, features), variables = jax.eval_shape(
        lambda x: model.init_with_output(jax.random.key(0), x, False), clip
    )
    count = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    counts = multiply_adds(lambda v, x: model.apply(v, x, False), variables, clip)
    last = " x ".join(map(str, features[model.stages[-1]].shape[1:]))
    sources = ", ".join(layout.source for layout in published_layouts(name)) or "none published"
    billions = f"{sum(counts.values()) / 1e9:.1f}"
    return [name, f"{count:,}", f"{frames} x {side} x {side}", billions, last, str(embedding.shape[-1]), sources]


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parity", action="store_true", help="measure the distance to PyTorch's")
    parity = parser.parse_args().parity
    head = ["backbone", "parameters", "clip", "GFLOPs (multiply-adds)", "last stage", "embedding", "weights"]
    head += [f"{what}, {dtype}" for what, dtype in PARITY] if parity else []
    print("| " + " | ".join(head) + " |")
    print("|" + "---|" * len(head))
    for name in CLIPS:
        cells = row(name) + (distances(name) if parity else [])
        print("| " + " | ".join(cells) + " |", flush=True)


def distances(name: str) -> list[str]:
    """How far we are from PyTorch's in each of `PARITY`."""
    from tests.parity.networks import NETWORKS

    if name not in NETWORKS:
        return [""] * len(PARITY)
    import torch

    from tests.parity.pair import Pair, distance

    pair = Pair(name, bias=3)
    scores = [
        distance(pair.ours(jnp.float32, train).scores, pair.theirs(torch.float32, train).scores)
        for train in (False, True)
    ]
    pair = Pair(name, bias=0)
    ours64, theirs64 = pair.ours(jnp.float64, True), pair.theirs(torch.float64, True)
    found = [*scores, distance(ours64.scores, theirs64.scores), distance(ours64.gradients, theirs64.gradients)]
    return [f"{value:.0e}" for value in found]


if __name__ == "__main__":
    main()
