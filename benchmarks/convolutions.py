"""Times each kind of convolution as it runs here against XLA's plain ones: `python benchmarks/convolutions.py`.

Prints medians in milliseconds, forward and both gradients, and the ratio of the sums, to the 3-D convolution; 1xkxk
also as a 2-D convolution over all frames. The forms take turns in one process. A form that is hopeless (the plain
gradient of a strided stem takes half a minute) is given up after one run.
"""

import argparse
import functools

import jax
from timing import compiled, medians

from hcml_jax.models.convolution import convolve

# (clip [B, T, H, W, C], kernel, features, strides)
CASES = [
    ((2, 16, 56, 56, 64), (1, 3, 3), 64, (1, 1, 1)),
    ((2, 16, 56, 56, 64), (1, 3, 3), 144, (1, 1, 1)),
    ((2, 16, 28, 28, 128), (1, 3, 3), 128, (1, 1, 1)),
    ((2, 16, 14, 14, 256), (1, 3, 3), 256, (1, 1, 1)),
    ((8, 16, 24, 24, 33), (1, 3, 3), 16, (1, 1, 1)),
    ((8, 15, 24, 24, 64), (1, 3, 3), 8, (1, 1, 1)),
    ((8, 8, 12, 12, 64), (1, 3, 3), 32, (1, 1, 1)),
    ((2, 16, 14, 14, 512), (1, 3, 3), 512, (1, 1, 1)),
    ((2, 16, 56, 56, 64), (1, 3, 3), 128, (1, 2, 2)),
    ((8, 16, 48, 48, 3), (1, 7, 7), 16, (1, 2, 2)),
    ((2, 16, 112, 112, 3), (1, 7, 7), 64, (1, 2, 2)),
    ((2, 16, 56, 56, 144), (3, 1, 1), 64, (1, 1, 1)),
    ((2, 16, 28, 28, 230), (3, 1, 1), 128, (2, 1, 1)),
    ((2, 8, 112, 112, 64), (7, 1, 1), 64, (2, 1, 1)),
    ((2, 16, 56, 56, 64), (3, 3, 3), 64, (1, 1, 1)),
    ((2, 8, 28, 28, 128), (3, 3, 3), 128, (1, 1, 1)),
    ((2, 4, 14, 14, 256), (3, 3, 3), 256, (1, 1, 1)),
    ((2, 2, 7, 7, 512), (3, 3, 3), 512, (1, 1, 1)),
    ((2, 16, 56, 56, 64), (3, 3, 3), 128, (2, 2, 2)),
    ((2, 16, 112, 112, 3), (3, 7, 7), 64, (1, 2, 2)),
]


def plain(x, kernel, strides):
    """XLA's own 3-D convolution."""
    pads = [(k // 2, k // 2) for k in kernel.shape[:3]]
    layout = ("NTHWC", "THWIO", "NTHWC")
    return jax.lax.conv_general_dilated(x, kernel, strides, pads, dimension_numbers=layout)


def plain_frames(x, kernel, strides):
    """XLA's own 2-D convolution of every frame, for kernels of one frame."""
    pads = [(k // 2, k // 2) for k in kernel.shape[1:3]]
    frames, layout = x.reshape(-1, *x.shape[2:]), ("NHWC", "HWIO", "NHWC")
    y = jax.lax.conv_general_dilated(frames, kernel[0], strides[1:], pads, dimension_numbers=layout)
    return y.reshape(*x.shape[:2], *y.shape[1:])


def programs(form, strides):
    """Forward pass, and gradients with respect to clip and kernel, as functions of clip, kernel and outcome."""

    def of_clip(x, kernel, y):
        return jax.vjp(lambda x: form(x, kernel, strides), x)[1](y)

    def of_kernel(x, kernel, y):
        return jax.vjp(lambda kernel: form(x, kernel, strides), kernel)[1](y)

    forward = jax.jit(lambda x, kernel, y: form(x, kernel, strides))
    return {"forward": forward, "clip": jax.jit(of_clip), "kernel": jax.jit(of_kernel)}


def inputs(form, shape, window, features, strides, dtype):
    """A random clip, kernel and outcome."""
    keys = jax.random.split(jax.random.key(0), 3)
    x = jax.random.normal(keys[0], shape, dtype)
    kernel = jax.random.normal(keys[1], (*window, shape[-1], features), dtype)
    y = jax.eval_shape(lambda x, kernel: form(x, kernel, strides), x, kernel)
    return x, kernel, jax.random.normal(keys[2], y.shape, dtype)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    options = parser.parse_args()
    print(f"jax {jax.__version__} on {jax.devices()}; milliseconds, medians of {options.rounds}")
    print("| clip | kernel, features, strides | dtype | 3-D: forward, clip, kernel | 2-D | here | ratio |")
    print("|---|---|---|---|---|---|---|")
    for shape, window, features, strides in CASES:
        for dtype in options.dtypes:
            arguments = inputs(convolve, shape, window, features, strides, dtype)
            forms = (plain, plain_frames, convolve) if window[0] == 1 else (plain, convolve)
            functions = [f for form in forms for f in programs(form, strides).values()]
            runs = {
                number: functools.partial(compiled(function, *arguments)[0], *arguments)
                for number, function in enumerate(functions)
            }
            times = [1e3 * seconds for seconds in medians(runs, options.rounds).values()]
            cells = [", ".join(f"{t:.0f}" for t in times[i : i + 3]) for i in range(0, len(times), 3)]
            if len(forms) == 2:
                cells.insert(1, "")
            ratio = sum(times[-3:]) / sum(times[:3])
            print(
                f"| {' x '.join(map(str, shape))} | {window}, {features}, {strides} | {dtype} | "
                f"{' | '.join(cells)} | {ratio:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
