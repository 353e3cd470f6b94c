"""All tables that need a GPU, in parts of 9 minutes: `python benchmarks/accelerator.py --out DIR`.

A part begins no more rows after --budget seconds, and lists those left; the same command resumes with them. Rows are in
DIR/<part>.jsonl, tables in DIR/tables.md. PyTorch is optional.
"""

import math
import pathlib
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import partial

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))  # the checkout need not be installed

import backbones
import contrast
import convolutions
import cost_volume
import jax
import jax.numpy as jnp
import motion_maps
import rows
from rows import Case, Part, Row, look, over, show, timed
from timing import compiled

from hcml_jax.models import convolution_cpu
from hcml_jax.models.convolution import as_defined, convolve, paddings
from hcml_jax.models.cost import multiply_adds
from hcml_jax.training.mesh import make_mesh

# backbone -> clips [B, T, H, W, 3], in the order in which they are of interest
STEPS = {
    "r2d_50": (16, 16, 224, 224, 3),
    "r3d_18": (16, 16, 112, 112, 3),
    "r2plus1d_18": (16, 16, 112, 112, 3),
    "s3d": (16, 16, 224, 224, 3),
    "slowfast_r50_8x8": (8, 32, 224, 224, 3),
    "r2plus1d_101": (8, 32, 224, 224, 3),
    "i3d": (16, 16, 224, 224, 3),
    "resnet3d_50": (16, 16, 112, 112, 3),
    "resnext3d_101": (16, 16, 112, 112, 3),
    "resnet3d_18": (16, 16, 112, 112, 3),
    "c3d": (16, 16, 112, 112, 3),
}
LEVELS = [(16, 56, 56, 32), (8, 28, 28, 64), (4, 14, 14, 128)]  # features that R2D-50's motion blocks match
CLIPS = 16  # of a convolution: a GPU would finish 2 before the next one is launched
TRANSPOSED = ((CLIPS, 8, 28, 28, 128), (3, 3, 3), 64, (2, 2, 2))
WAYS = ("forward", "clip", "kernel")  # a convolution, and its gradients
DTYPES = ("bfloat16", "float32")


def parts(folder: pathlib.Path, small: bool) -> dict[str, Part]:
    """The parts to measure; with tiny shapes, if `small`."""
    rates = rate_part(small)
    best = rows.read_rows(folder, "matrix_rate").get(rates.cases[0].name)
    return {
        "matrix_rate": rates,
        "steps": step_part(small, _rate(best)),
        "cost_volume": volume_part(small),
        "contrast": contrast_part(small),
        "motion_maps": map_part(small),
        "convolutions": convolution_part(small),
    }


def program(function: Callable, *arguments) -> Callable:
    """A function that compiles a program and binds these arrays to it."""

    def make():
        run, facts = compiled(jax.jit(function), *arguments)
        return partial(run, *arguments), facts

    return make


def normal(*shape: int, dtype="float32") -> jax.Array:
    """Random numbers: products of zeros take less power, and run faster."""
    return jax.random.normal(jax.random.key(0), shape, dtype)


def copy(size: int) -> Callable:
    """As `program`, reading and writing `size` bytes in all."""
    return program(jnp.negative, normal(size // 8))


def by(numbers: Sequence[int]) -> str:
    """A shape in words."""
    return " x ".join(map(str, numbers))


# What the device can do


def rate_part(small: bool) -> Part:
    """Products of large square matrices, the first of which is the reference for shares, and a copy."""
    side, size = (64, 2**16) if small else (8192, 2**32)
    kinds = [("bfloat16", "default"), ("float32", "default"), ("float32", "highest")]
    cases = [
        Case((f"product, {dtype}, {precision}", by([side] * 3)), "jax", partial(product, side, dtype, precision))
        for dtype, precision in kinds
    ]
    cases.append(Case(("copy, read and written", f"{size:,} bytes"), "jax", partial(copied, size)))
    return Part(("what", "size", "ms", "rate", "compile, s"), cases, _rate_cells)


def product(side: int, dtype: str, precision: str, rounds: int | None) -> Row:
    """A product of square matrices."""
    matrix = normal(side, side, dtype=dtype)
    multiply = partial(jnp.matmul, precision=precision)
    found = timed({"run": program(multiply, matrix, matrix)}, rounds)
    return found | {"amount": 2 * side**3 / 1e12, "unit": "TFLOP/s"}


def copied(size: int, rounds: int | None) -> Row:
    """A copy of so many bytes read and written."""
    return timed({"run": copy(size)}, rounds) | {"amount": size / 1e9, "unit": "GB/s"}


def _rate(row: Row | None) -> float | str:
    return over(look(row, None, "amount"), look(row, "run"))


def _rate_cells(ours: Row | None, _) -> list[str]:
    milliseconds, compiling = show(look(ours, "run"), scale=1e3), show(look(ours, "run", "compile"))
    return [milliseconds, f"{show(_rate(ours))} {look(ours, None, 'unit')}", compiling]


# Training steps


def step_part(small: bool, rate: float | str) -> Part:
    """Steps of ours without motion blocks, of PyTorch's where there is one, of ours with motion blocks."""
    networks = {"resnet_18": (2, 2, 32, 32, 3)} if small else STEPS
    lines = {name: (name, by(shape[:-1])) for name, shape in networks.items()}
    ours, moving = (
        [
            Case((*lines[name], motion), "jax", partial(our_step, name, shape, bool(motion)))
            for name, shape in networks.items()
        ]
        for motion in ("", "yes")
    )
    theirs = [
        Case((*lines[name], ""), "PyTorch", partial(their_step, name, shape))
        for name, shape in networks.items()
        if name in backbones.NETWORKS
    ]
    heads = ("backbone", "clips", "motion blocks", "clips/s", "PyTorch's", "ratio", "TFLOP/s")
    heads += ("of the matrix rate", "GiB", "PyTorch's", "compile, s", "PyTorch's")
    return Part(heads, ours + theirs + moving, partial(_step_cells, rate))


def our_step(name: str, shape: tuple[int, ...], motion: bool, rounds: int | None) -> Row:
    """A training step of ours."""
    make = partial(backbones.our_step, name, shape, "bfloat16", motion_blocks=motion)
    model = backbones.recogniser(name, "bfloat16", motion)
    variables = backbones.abstract_variables(model, shape)
    clip = jax.ShapeDtypeStruct(shape, jnp.float32)
    counts = multiply_adds(lambda v, x: model.apply(v, x, False), variables, clip)
    # Multiply and add; forward, and gradients of inputs and of kernels.
    amount = 2 * 3 * sum(counts.values()) / 1e12
    return timed({"step": make}, rounds) | {"clips": shape[0], "amount": amount}


def their_step(name: str, shape: tuple[int, ...], rounds: int | None) -> Row:
    """A training step of PyTorch's."""
    make = partial(backbones.their_step, name, shape, "bfloat16", compiles=True)
    return timed({"step": make}, rounds) | {"clips": shape[0]}


def _step_cells(rate: float | str, ours: Row | None, theirs: Row | None) -> list[str]:
    pair = (ours, theirs)
    speeds = [over(look(row, None, "clips"), look(row, "step")) for row in pair]
    reached = over(look(ours, None, "amount"), look(ours, "step"))
    cells = [*speeds, over(*speeds), reached, over(reached, rate)]
    cells += [over(look(row, "step", "bytes"), 2**30) for row in pair]
    return [show(cell) for cell in (*cells, *(look(row, "step", "compile") for row in pair))]


# Cost volumes


def volume_part(small: bool) -> Part:
    """Cost volumes of R2D-50's motion blocks, in both forms, and copies of what they must read and write."""
    shapes = [(clips, *level) for clips in (8, 32) for level in LEVELS]
    shapes = [(1, 2, 8, 8, 4)] if small else shapes
    cases = [Case((by(shape), dtype), "jax", partial(volume, shape, dtype)) for dtype in DTYPES for shape in shapes]
    heads = [(f"{what}: shifts", "rows", "copy, ms", "shifts / copy") for what in ("forward", "with gradient")]
    return Part(("features", "dtype", *heads[0], *heads[1], "compile, s"), cases, _volume_cells)


def volume(shape: tuple[int, ...], dtype: str, rounds: int | None) -> Row:
    """Times beside copies: forward, features are read and the volume written; gradients add the same bytes again."""
    arrays = cost_volume.inputs(shape, 6, 2, dtype)
    makers = {
        f"{form.__name__} {what}": program(function, *arrays)
        for form in cost_volume.FORMS
        for what, function in cost_volume.programs(form, 6, 2).items()
    }
    size = sum(array.nbytes for array in arrays)
    return timed(makers | {"copy forward": copy(size), "copy gradient": copy(2 * size)}, rounds)


def _volume_cells(ours: Row | None, _) -> list[str]:
    cells = []
    for what in ("forward", "gradient"):
        names = ("cost_volume_by_shifts", "cost_volume", "copy")
        times = [look(ours, f"{name} {what}") for name in names]
        cells += [show(seconds, scale=1e3) for seconds in times]
        cells.append(show(over(times[0], times[-1])))
    return [*cells, show(look(ours, "cost_volume_by_shifts gradient", "compile"))]


# Contrast


def contrast_part(small: bool) -> Part:
    """InfoNCE and its gradients over more and more candidates."""
    powers = (6,) if small else range(12, 21, 2)
    cases = [Case((f"2^{power}",), "jax", partial(candidates, 2**power)) for power in powers]
    heads = [f"{form}, {unit}" for unit in ("MiB", "ms", "compile, s") for form in contrast.FORMS]
    return Part(("candidates", *heads), cases, partial(_form_cells, contrast.FORMS))


def candidates(count: int, rounds: int | None) -> Row:
    """The forms of InfoNCE over so many candidates: the ring only on several devices."""
    mesh = make_mesh()
    arrays = contrast.inputs(count, mesh)
    forms = contrast.FORMS if mesh.size > 1 else ("dense", "chunked")
    return timed({form: partial(_contrast, form, mesh, arrays) for form in forms}, rounds)


def _contrast(form: str, mesh, arrays):
    count, limit = (len(arrays[0]), (jax.devices()[0].memory_stats() or {}).get("bytes_limit", math.inf))
    similarities = 2 * 4 * count**2 / mesh.size  # and their gradient
    if form == "dense" and similarities > limit:
        raise MemoryError(f"{similarities / 2**30:,.0f} GiB")
    run, facts = contrast.compile_form(form, count, mesh)
    return partial(run, *arrays), facts


def _form_cells(forms: Iterable[str], ours: Row | None, _) -> list[str]:
    keys = (("temporaries", 2**-20), ("seconds", 1e3), ("compile", 1))
    return [show(look(ours, form, key), scale=scale) for key, scale in keys for form in forms]


# Motion maps


def map_part(small: bool) -> Part:
    """Motion maps applied to frames and to features, with both gradients, in several forms."""
    sizes = [((1, 8, 8, 3), 3)] if small else [((8 * clips, *shape), k) for (clips, *shape), k in motion_maps.CASES]
    cases = [Case((by(shape), str(size)), "jax", partial(moved, shape, size)) for shape, size in sizes]
    heads = [f"{form}, {unit}" for unit in ("MiB", "ms", "compile, s") for form in motion_maps.FORMS]
    return Part(("frames", "k", *heads), cases, partial(_form_cells, motion_maps.FORMS))


def moved(shape: tuple[int, ...], size: int, rounds: int | None) -> Row:
    """Frames moved by filters of `size` x `size`."""
    given = motion_maps.inputs(shape, size)
    return timed({name: program(motion_maps.step(form), *given) for name, form in motion_maps.FORMS.items()}, rounds)


# Convolutions


def convolution_part(small: bool) -> Part:
    """3-D convolutions: XLA's, those used here on a GPU and on CPUs, and PyTorch's; the last case is transposed."""
    plain = [((CLIPS, *shape[1:]), *rest) for shape, *rest in convolutions.CASES]
    turned, dtypes = TRANSPOSED, DTYPES
    if small:
        plain, dtypes = [((1, 4, 8, 8, 3), (1, 3, 3), 4, (1, 2, 2))], ("bfloat16",)
        turned = ((1, 2, 4, 4, 4), (3, 3, 3), 3, (2, 2, 2))
    kinds = [(case, False) for case in plain] + [(turned, True)]
    cases = [
        Case((*_words(*kind), dtype), process, partial(measure, *kind, dtype))
        for dtype in dtypes
        for process, measure in (("jax", our_convolution), ("PyTorch", their_convolution))
        for kind in kinds
    ]
    heads = ("clip", "kernel, features, strides", "dtype", "plain: forward, clip, kernel; ms")
    heads += ("here", "as on CPUs", "PyTorch", "here / PyTorch", "compile, s")
    return Part(heads, cases, _convolution_cells)


def _words(case: tuple, turned: bool) -> tuple[str, str]:
    shape, window, features, strides = case
    return by(shape), f"{window}, {features}, {strides}" + ", transposed" * turned


def on_gpus(x, kernel, strides):
    """A convolution as it runs on anything but a CPU."""
    with as_defined():
        return convolve(x, kernel, strides)


def on_cpus(x, kernel, strides):
    """A convolution as it runs on CPUs."""
    pads = paddings(x.shape[1:4], kernel.shape[:3], strides, "half")
    if kernel.shape[0] > 1:
        return convolution_cpu.convolve_over_time(x, kernel, strides, pads)
    frames = x[:, :: strides[0]]
    return convolution_cpu.convolve_frames(frames, kernel[0], strides[1:], tuple(pads[1:]))


def transposed(form, x, kernel, strides):
    """`[B, T, H, W, C]` to `[B, st T, sh H, sw W, D]`, as the gradient of a convolution."""
    size = (n * s for n, s in zip(x.shape[1:4], strides, strict=True))
    clip = jnp.zeros((len(x), *size, kernel.shape[-1]), x.dtype)
    return jax.vjp(lambda clip: form(clip, kernel.swapaxes(3, 4), strides), clip)[1](x)[0]


def plainly_transposed(x, kernel, strides):
    """The same sizes, by XLA's own."""
    layout = ("NTHWC", "THWIO", "NTHWC")
    return jax.lax.conv_transpose(x, kernel, strides, "SAME", dimension_numbers=layout)


def our_convolution(case: tuple, turned: bool, dtype: str, rounds: int | None) -> Row:
    """A convolution and its gradients in our forms."""
    forms = {"plain": convolutions.plain, "here": on_gpus, "CPU": on_cpus}
    if turned:
        forms = {name: partial(transposed, form) for name, form in forms.items()}
        forms["plain"] = plainly_transposed
    elif case[1][0] > 1:
        del forms["here"]  # is the plain one
    arrays = convolutions.inputs(forms["plain"], *case, dtype)
    makers = {
        f"{name} {way}": program(function, *arrays)
        for name, form in forms.items()
        for way, function in convolutions.programs(form, case[-1]).items()
    }
    found = timed(makers, rounds)["programs"]
    return {"programs": {f"here {way}": found[f"plain {way}"] for way in WAYS} | found}


def their_convolution(case: tuple, turned: bool, dtype: str, rounds: int | None) -> Row:
    """A convolution and its gradients in PyTorch, channels last."""
    import torch

    torch.backends.cudnn.benchmark = True
    shape, window, features, strides = case
    on_gpu = torch.cuda.is_available()
    draw = partial(torch.randn, device="cuda" if on_gpu else "cpu", dtype=getattr(torch, dtype))
    ends = (shape[-1], features) if turned else (features, shape[-1])
    x, kernel = draw(shape).movedim(-1, 1), draw(*ends, *window)
    kernel = kernel.contiguous(memory_format=torch.channels_last_3d)
    beyond = [turned * (s - 1) for s in strides]
    options = (strides, [k // 2 for k in window], (1, 1, 1), turned, beyond, 1)
    forward, backward = torch.ops.aten.convolution, torch.ops.aten.convolution_backward
    y = torch.randn_like(forward(x, kernel, None, *options))
    runs = {
        "forward": partial(forward, x, kernel, None, *options),
        "clip": partial(backward, y, x, kernel, None, *options, (True, False, False)),
        "kernel": partial(backward, y, x, kernel, None, *options, (False, True, False)),
    }
    makers = {way: partial(lambda run: (run, {}), run) for way, run in runs.items()}
    return timed(makers, rounds, lambda _: torch.cuda.synchronize() if on_gpu else None)


def _convolution_cells(ours: Row | None, theirs: Row | None) -> list[str]:
    plain, here, on_cpu = ([look(ours, f"{form} {way}") for way in WAYS] for form in ("plain", "here", "CPU"))
    other = [look(theirs, way) for way in WAYS]
    ratios = [over(a, b) for a, b in zip(here, other, strict=True)]
    cells = [show(*times, scale=1e3) for times in (plain, here, on_cpu, other)]
    compiling = [look(ours, f"here {way}", "compile") for way in WAYS]
    return [*cells, show(*ratios), show(*compiling)]


if __name__ == "__main__":
    rows.main(parts, __doc__)
