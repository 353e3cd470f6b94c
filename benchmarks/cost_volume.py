"""Times `cost_volume` against its plain reference: `python benchmarks/cost_volume.py`.

Prints medians in milliseconds and their ratio, forward and value-and-gradient, in float32 and
bfloat16. The two forms take turns in one process, so that what else the machine does hits both.
"""

import argparse
import functools
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np

from hcml_jax.ops import cost_volume, cost_volume_reference

# (features [B, T, H, W, C], max_displacement, stride): the levels of the demo, then of R2D-50.
CASES = [
    ((16, 8, 24, 24, 16), 4, 2),
    ((16, 4, 12, 12, 32), 4, 2),
    ((16, 2, 6, 6, 64), 4, 2),
    ((2, 8, 56, 56, 32), 6, 2),
    ((2, 4, 28, 28, 64), 6, 2),
]
FORMS = (cost_volume_reference, cost_volume)


def programs(form, shape, max_displacement, stride):
    """The compiled forward pass and value-and-gradient of a weighted sum of the volume."""
    volume = functools.partial(form, max_displacement=max_displacement, stride=stride)
    channels = (2 * (max_displacement // stride) + 1) ** 2
    weights = np.random.default_rng(1).normal(size=(*shape[:-1], channels)).astype(np.float32)

    def total(features):
        return jnp.sum(volume(features).astype(jnp.float32) * weights)

    return jax.jit(volume), jax.jit(jax.value_and_grad(total))


def medians(functions, argument, rounds):
    """Median seconds of each function; in every round each runs once."""
    for function in functions:
        jax.block_until_ready(function(argument))
    seconds = [[] for _ in functions]
    for _ in range(rounds):
        for function, taken in zip(functions, seconds, strict=True):
            start = time.perf_counter()
            jax.block_until_ready(function(argument))
            taken.append(time.perf_counter() - start)
    return [statistics.median(taken) for taken in seconds]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15, help="runs of each form (default 15)")
    rounds = parser.parse_args().rounds
    print(f"jax {jax.__version__} on {jax.devices()}; milliseconds, medians of {rounds}")
    print("| features | d, s | dtype | forward | fast | ratio | gradient | fast | ratio |")
    print("|---|---|---|---|---|---|---|---|---|")
    for (shape, d, s), dtype in [(c, t) for t in (jnp.float32, jnp.bfloat16) for c in CASES]:
        features = jnp.asarray(np.random.default_rng(0).normal(size=shape), dtype)
        (plain, plain_gradient), (fast, fast_gradient) = (programs(f, shape, d, s) for f in FORMS)
        times = medians([plain, fast, plain_gradient, fast_gradient], features, rounds)
        forward, forward_fast, gradient, gradient_fast = (1e3 * t for t in times)
        print(
            f"| {'x'.join(map(str, shape))} | {d}, {s} | {features.dtype} "
            f"| {forward:.2f} | {forward_fast:.2f} | {forward / forward_fast:.1f} "
            f"| {gradient:.2f} | {gradient_fast:.2f} | {gradient / gradient_fast:.1f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
