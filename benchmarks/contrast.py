"""Memory and time of the forms of InfoNCE: `python benchmarks/contrast.py`.

As many queries as keys, of 128 channels; losses and gradients of both. Bytes are the temporaries of one device, as the
compiler reports them; nothing is run for them. Milliseconds are medians, the forms in turn. On several devices, also
simulated ones (XLA_FLAGS=--xla_force_host_platform_device_count=8), queries and keys are split over them.
"""

import argparse
import functools
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from hcml_jax.contrastive import info_nce
from hcml_jax.training.mesh import make_mesh

CHANNELS = 128
FORMS = ("dense", "chunked", "ring")


def compile_form(form: str, candidates: int, mesh):
    """The compiled gradient of the mean loss."""

    def loss(queries, keys, positives):
        losses = info_nce(queries, keys, positives, temperature=0.07, form=form, mesh=mesh)
        return losses.mean()

    split = NamedSharding(mesh, P("data"))
    shaped = functools.partial(jax.ShapeDtypeStruct, sharding=split)
    vectors = shaped((candidates, CHANNELS), jnp.float32)
    step = jax.jit(jax.value_and_grad(loss, (0, 1)), out_shardings=(None, split))
    return step.lower(vectors, vectors, shaped((candidates,), jnp.int32)).compile()


def milliseconds(compiled: dict, candidates: int, mesh, rounds: int) -> dict[str, float]:
    """Medians of `rounds`, the forms in turn; a first round is not counted."""
    rng = np.random.default_rng(0)
    split = NamedSharding(mesh, P("data"))
    vectors = [rng.normal(size=(candidates, CHANNELS)).astype(np.float32) for _ in range(2)]
    arguments = jax.device_put((*vectors, np.arange(candidates, dtype=np.int32)), split)
    times = {form: [] for form in compiled}
    for number in range(rounds + 1):
        for form, step in compiled.items():
            start = time.perf_counter()
            jax.block_until_ready(step(*arguments))
            if number:
                times[form].append(1e3 * (time.perf_counter() - start))
    return {form: statistics.median(found) for form, found in times.items()}


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--powers", type=int, nargs="+", default=list(range(12, 21, 2)))
    parser.add_argument("--timed_up_to", type=int, default=14, help="power of two")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    mesh = make_mesh()
    device = f"{mesh.size} x {jax.devices()[0].device_kind}"
    heads = [f"{form}, {unit}" for unit in ("MiB", "ms") for form in FORMS]
    print(f"| candidates ({device}) | {' | '.join(heads)} |\n|{'---|' * 7}")
    for power in arguments.powers:
        compiled = {form: compile_form(form, 2**power, mesh) for form in FORMS}
        cells = [
            f"{step.memory_analysis().temp_size_in_bytes / 2**20:,.1f}"
            for step in compiled.values()
        ]
        if power <= arguments.timed_up_to:
            found = milliseconds(compiled, 2**power, mesh, arguments.rounds)
            cells += [f"{found[form]:,.1f}" for form in FORMS]
        else:
            cells += ["-"] * 3
        print(f"| 2^{power} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
