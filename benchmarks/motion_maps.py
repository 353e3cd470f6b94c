"""Forms of applying motion maps: `python benchmarks/motion_maps.py`.

`apply_motion_maps` on frames (CGM-Net eq. 1) and on features (eq. 2, the similarity that guides), compared with jax's
own gradient of the same sum of shifts, patches with a copy for each entry of a filter, and PyTorch's `unfold` if
PyTorch is installed. Value and gradients with respect to both. Bytes are the temporaries that the compiler reports,
measured on a CPU: a guide to a GPU's memory, not to its speed; milliseconds are medians, all forms in turn.
"""

import argparse
import functools

import jax
import jax.numpy as jnp
import numpy as np
from timing import compiled, medians

from hcml_jax.ops import apply_motion_maps, filter_size

CASES = (((16, 48, 48, 3), 7), ((8, 112, 112, 3), 11), ((8, 28, 28, 128), 5))  # frames [N, H, W, C], k


def windows(frames, maps):
    """Yield the window that each entry multiplies."""
    size, (height, width) = filter_size(maps), frames.shape[1:3]
    margin = (size // 2, size // 2)
    padded = jnp.pad(frames, [(0, 0), margin, margin, (0, 0)], mode="edge")
    for m in reversed(range(size)):
        for n in reversed(range(size)):
            yield padded[:, n : n + height, m : m + width]


def derived(frames, maps):
    """A sum of shifts, with the gradient that jax derives."""
    return sum(maps[..., entry, None] * window for entry, window in enumerate(windows(frames, maps)))


def patches(frames, maps):
    """A product with a copy of the frames for each entry."""
    return jnp.einsum("nhwm,nhwmc->nhwc", maps, jnp.stack([*windows(frames, maps)], axis=3))


FORMS = {"ours": apply_motion_maps, "derived": derived, "patches": patches}


def inputs(shape, size):
    """Random frames and maps."""
    keys = jax.random.split(jax.random.key(0))
    return jax.random.normal(keys[0], shape), jax.random.normal(keys[1], (*shape[:-1], size**2))


def step(form):
    """The gradients of the squares of what a form makes, with respect to frames and maps."""
    return jax.grad(lambda *given: jnp.square(form(*given)).sum() / 2, argnums=(0, 1))


def unfolded(*given):
    """A function that runs PyTorch's forward and backward pass once; None where PyTorch is not installed."""
    try:
        import torch
    except ImportError:
        return None
    size = filter_size(given[1])
    frames, maps = (torch.tensor(np.moveaxis(np.asarray(x), -1, 1), requires_grad=True) for x in given)
    # `unfold` orders entries by row and correlates: column m and row n have index n * size + m from the end.
    order = [(size - 1 - n) * size + size - 1 - m for m in range(size) for n in range(size)]

    def run():
        padded = torch.nn.functional.pad(frames, [size // 2] * 4, mode="replicate")
        columns = torch.nn.functional.unfold(padded, size).reshape(*frames.shape[:2], size**2, *frames.shape[2:])
        moved = (columns[:, :, order] * maps[:, None]).sum(2)
        moved.backward(moved.detach())
        return moved.detach().numpy()

    expected = np.moveaxis(np.asarray(apply_motion_maps(*given)), -1, 1)
    np.testing.assert_allclose(run(), expected, rtol=1e-3, atol=1e-3)
    return run


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    heads = [*(f"{form}, MiB" for form in FORMS), *(f"{form}, ms" for form in (*FORMS, "PyTorch"))]
    print(f"| frames, k ({jax.devices()[0].device_kind}) | {' | '.join(heads)} |\n|{'---|' * (1 + len(heads))}")
    for shape, size in CASES:
        given, runs, cells = inputs(shape, size), {}, []
        for name, form in FORMS.items():
            program, facts = compiled(jax.jit(step(form)), *given)
            runs[name] = functools.partial(program, *given)
            cells.append(f"{facts['temporaries'] / 2**20:,.0f}")
        if theirs := unfolded(*given):
            runs["PyTorch"] = theirs
        found = medians(runs, rounds)
        cells += [f"{1e3 * found[name]:,.0f}" if name in found else "-" for name in (*FORMS, "PyTorch")]
        print(f"| {' x '.join(map(str, shape))}, {size} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
