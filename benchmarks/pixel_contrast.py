"""Memory and time of FIMA's L_Pix, dense and chunked: `python benchmarks/pixel_contrast.py`.

Maps of 2 x 7 x 7 places, 128 channels, in one direction: of UCF-101 (24 clips, negatives are the places of 8 clips) and
of Kinetics (64 clips, queues of more and more places, to the paper's 31,360). Loss and gradient of the queries. Bytes
are the temporaries of one device, as the compiler reports them; nothing is run for them. Milliseconds are medians, the
forms in turn. On several devices, also simulated ones (XLA_FLAGS=--xla_force_host_platform_device_count=8), clips and
the queue are split over them.
"""

import argparse
import functools

import jax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from timing import compiled, medians

from hcml_jax.contrastive import info_nce_of_clips
from hcml_jax.training.mesh import make_mesh

PLACES, CHANNELS, NEAR = 98, 128, 0.04  # share of the places of a clip that are positives
FORMS = ("dense", "chunked")
CASES = ((24, 0), (64, 3_136), (64, 12_544), (64, 31_360))  # clips, places in the queue


def compile_form(form: str, clips: int, queue: int, mesh):
    """The program of the mean loss and the gradient of the queries, and what compiling says of it."""

    def loss(queries, keys, positives, negatives):
        options = {"negatives": negatives} if queue else {"group": 8}
        return info_nce_of_clips(queries, keys, positives, temperature=0.1, form=form, **options).losses.mean()

    split = NamedSharding(mesh, P("data"))
    step = jax.jit(jax.value_and_grad(loss), out_shardings=(None, split))
    shaped = [
        jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=split)
        for x in jax.eval_shape(functools.partial(inputs, clips, queue))
    ]
    return compiled(step, *shaped)


def inputs(clips: int, queue: int):
    """Random queries, keys, positives and queue."""
    keys = jax.random.split(jax.random.key(0), 4)
    shape = clips, PLACES, CHANNELS
    queries, own = (jax.random.normal(key, shape) for key in keys[:2])
    positives = jax.random.bernoulli(keys[2], NEAR, (clips, PLACES, PLACES))
    return queries, own, positives, jax.random.normal(keys[3], (queue or 8, CHANNELS))


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--untimed", action="store_true", help="memory alone")
    arguments = parser.parse_args()
    mesh = make_mesh()
    split, device = NamedSharding(mesh, P("data")), f"{mesh.size} x {jax.devices()[0].device_kind}"
    heads = [f"{form}, {unit}" for unit in ("MiB", "ms") for form in FORMS]
    print(f"| clips and queue ({device}) | {' | '.join(heads)} |\n|{'---|' * 5}")
    for clips, queue in CASES:
        programs = {form: compile_form(form, clips, queue, mesh) for form in FORMS}
        cells = [f"{facts['temporaries'] / 2**20:,.1f}" for _, facts in programs.values()]
        if arguments.untimed:
            cells += ["-"] * len(FORMS)
        else:
            given = jax.device_put(jax.jit(inputs, static_argnums=(0, 1))(clips, queue), split)
            runs = {form: functools.partial(run, *given) for form, (run, _) in programs.items()}
            found = medians(runs, arguments.rounds)
            cells += [f"{1e3 * found[form]:,.1f}" for form in FORMS]
        print(f"| {clips}, {queue or 'of the batch'} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
