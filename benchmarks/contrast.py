"""Memory and time of the forms of InfoNCE: `python benchmarks/contrast.py`.

As many queries as keys, of 128 channels; losses and gradients of both. Bytes are the temporaries of one device, as the
compiler reports them; nothing is run for them. Milliseconds are medians, the forms in turn. On several devices, also
simulated ones (XLA_FLAGS=--xla_force_host_platform_device_count=8), queries and keys are split over them.
"""

import argparse
import functools

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from timing import compiled, medians

from hcml_jax.contrastive import info_nce
from hcml_jax.training.mesh import make_mesh

CHANNELS = 128
FORMS = ("dense", "chunked", "ring")


def compile_form(form: str, candidates: int, mesh):
    """The program of the mean loss and its gradients, and what compiling says of it."""

    def loss(queries, keys, positives):
        losses = info_nce(queries, keys, positives, temperature=0.07, form=form, mesh=mesh)
        return losses.mean()

    split = NamedSharding(mesh, P("data"))
    shaped = functools.partial(jax.ShapeDtypeStruct, sharding=split)
    vectors = shaped((candidates, CHANNELS), jnp.float32)
    step = jax.jit(jax.value_and_grad(loss, (0, 1)), out_shardings=(None, split))
    return compiled(step, vectors, vectors, shaped((candidates,), jnp.int32))


def inputs(candidates: int, mesh):
    """Random queries and keys, each query's positive the key of its number."""
    keys = jax.random.split(jax.random.key(0))
    vectors = (jax.random.normal(key, (candidates, CHANNELS)) for key in keys)
    return jax.device_put((*vectors, jnp.arange(candidates)), NamedSharding(mesh, P("data")))


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
        programs = {form: compile_form(form, 2**power, mesh) for form in FORMS}
        cells = [f"{facts['temporaries'] / 2**20:,.1f}" for _, facts in programs.values()]
        if power <= arguments.timed_up_to:
            given = inputs(2**power, mesh)
            runs = {form: functools.partial(run, *given) for form, (run, _) in programs.items()}
            found = medians(runs, arguments.rounds)
            cells += [f"{1e3 * found[form]:,.1f}" for form in FORMS]
        else:
            cells += ["-"] * 3
        print(f"| 2^{power} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
