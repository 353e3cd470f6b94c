"""Times the two forms of the cost volume: `python benchmarks/cost_volume.py`.

Prints medians in milliseconds and the ratio of shifts to rows, forward and value-and-gradient, in float32 and
bfloat16. The two forms take turns in one process, so that what else the machine does hits both.
"""

import argparse
import functools

import jax
from timing import compiled, medians

from hcml_jax.ops import cost_volume, cost_volume_by_shifts

# (features [B, T, H, W, C], max_displacement, stride): the levels of the demo, then of R2D-50.
CASES = [
    ((16, 8, 24, 24, 16), 4, 2),
    ((16, 4, 12, 12, 32), 4, 2),
    ((16, 2, 6, 6, 64), 4, 2),
    ((2, 8, 56, 56, 32), 6, 2),
    ((2, 4, 28, 28, 64), 6, 2),
]
FORMS = (cost_volume_by_shifts, cost_volume)


def programs(form, max_displacement, stride):
    """Forward pass, and forward pass with gradient, as functions of features and of the volume's gradient."""
    volume = functools.partial(form, max_displacement=max_displacement, stride=stride)

    def with_gradient(features, gradient):
        found, pull = jax.vjp(volume, features)
        return found, pull(gradient)

    forward = jax.jit(lambda features, gradient: volume(features))
    return {"forward": forward, "gradient": jax.jit(with_gradient)}


def inputs(shape, max_displacement, stride, dtype):
    """Random features, and a gradient of their volume."""
    channels = (2 * (max_displacement // stride) + 1) ** 2
    keys = jax.random.split(jax.random.key(0))
    return [
        jax.random.normal(key, (*shape[:-1], size), dtype)
        for key, size in zip(keys, (shape[-1], channels), strict=True)
    ]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15, help="runs of each form (default 15)")
    rounds = parser.parse_args().rounds
    print(f"jax {jax.__version__} on {jax.devices()}; milliseconds, medians of {rounds}")
    print("| features | d, s | dtype | forward: shifts | rows | ratio | gradient: shifts | rows | ratio |")
    print("|---|---|---|---|---|---|---|---|---|")
    for dtype in ("float32", "bfloat16"):
        for shape, d, s in CASES:
            arguments = inputs(shape, d, s, dtype)
            runs = {
                (what, form): functools.partial(compiled(function, *arguments)[0], *arguments)
                for form in FORMS
                for what, function in programs(form, d, s).items()
            }
            times = medians(runs, rounds)
            cells = ["x".join(map(str, shape)), f"{d}, {s}", dtype]
            for what in ("forward", "gradient"):
                shifts, rows = (1e3 * times[what, form] for form in FORMS)
                cells += [f"{shifts:.2f}", f"{rows:.2f}", f"{shifts / rows:.1f}"]
            print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
