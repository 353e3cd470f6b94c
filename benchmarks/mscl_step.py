"""Time of a step of MSCL compared with the passes of its encoders: `python benchmarks/mscl_step.py [--config FILE]`.

A step is made of the passes of its encoders, forward and backward for queries, forward alone for keys, and of all else:
augmentation, flow images, losses, queues, moving averages, the optimizer. Times are medians of rounds in which each has
its turn; programs of 2 seconds and more are timed once.
"""

import argparse
import functools
import runpy
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from timing import medians

from hcml_jax.batch import blank_batch
from hcml_jax.methods import build_method
from hcml_jax.methods.mscl import MSCL
from hcml_jax.methods.mscl_config import FLOW, RGB
from hcml_jax.models import TrainMode
from hcml_jax.training.mesh import Layout, make_mesh
from hcml_jax.training.optimizer import make_optimizer
from hcml_jax.training.step import init_state, init_variables, make_train_step

Run = Callable[[], jax.Array]


def whole_step(method: MSCL, clip_shape: tuple[int, ...], batch_size: int) -> Run:
    """A training step; each goes on from the one before."""
    (stage,) = method.stages
    layout, rng = Layout(make_mesh()), np.random.default_rng(0)
    batch = blank_batch(batch_size, clip_shape, stage.reads)
    batch = batch._replace(
        clip=rng.integers(0, 256, batch.clip.shape, dtype=np.uint8), consecutive=np.ones_like(batch.consecutive)
    )
    if stage.reads.flow:
        batch = batch._replace(flow=rng.normal(size=batch.flow.shape).astype(np.float32))
    optimizer = make_optimizer(stage.schedule, 1000, batch_size)
    held = {"state": init_state(init_variables(method, clip_shape, 0, layout), stage, optimizer, layout)}
    step, batch = make_train_step(method, stage, optimizer, 0, layout), layout.shard_batch(batch)

    def run():
        held["state"], metrics = step(held["state"], batch)
        return metrics

    return run


def passes(method: MSCL, clip_shape: tuple[int, ...], batch_size: int) -> dict[str, tuple[int, Run]]:
    """Name -> number of these passes of an encoder in a step, and a function that runs one."""
    config, layout = method.config, Layout(make_mesh())
    variables = init_variables(method, clip_shape, 0, layout)
    inputs = jax.random.normal(jax.random.key(0), (batch_size, *clip_shape))
    mode = TrainMode(method.stages[0].trainable, config.batch_norm_group)
    single = bool(config.local_weight)

    def forward(encoder, params, single):
        given = {"params": params, "batch_stats": variables["batch_stats"]}
        found, _ = method.network.apply(given, inputs, mode, single, method=encoder, mutable=["batch_stats"])
        return sum(jnp.sum(x) for x in jax.tree.leaves(found))

    found = {}
    of = {RGB: ("frames", 1), FLOW: ("flow", 1 + config.rotates)}
    for name in (RGB, FLOW) if config.uses_flow else (RGB,):
        encoder, queries = of[name]
        learn = jax.jit(jax.grad(functools.partial(forward, encoder, single=single)))
        found[f"{encoder}, forward and backward"] = queries, functools.partial(learn, variables["params"])
        keys = (name in config.key_modalities) + (name == FLOW and config.rotated_weight > 0)
        if keys:
            look = jax.jit(functools.partial(forward, encoder, single=False))
            found[f"{encoder}, forward"] = keys, functools.partial(look, variables["params"])
    return found


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", default="configs/mscl_sprites.py")
    parser.add_argument("--batch", type=int, default=0, help="clips a step; the config's if not given")
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    config = runpy.run_path(arguments.config)["get_config"]().to_dict()
    batch_size = arguments.batch or config["training"]["batch_size"]
    fields = config["method"]
    group = min(fields["batch_norm_group"], batch_size // 2)
    method = build_method(fields | {"batch_norm_group": group, "queue": fields["queue"] // batch_size * batch_size}, 0)
    clip_shape = (config["data"]["frames"], config["data"]["crop"], config["data"]["crop"], 3)
    parts = passes(method, clip_shape, batch_size)
    runs = {"step": whole_step(method, clip_shape, batch_size)} | {name: run for name, (_, run) in parts.items()}
    for run in runs.values():  # compiles
        jax.block_until_ready(run())
    seconds = medians(runs, arguments.rounds)
    total = sum(count * seconds[name] for name, (count, _) in parts.items())
    print(f"{arguments.config}, {batch_size} clips a step\n\n| part | times | ms | of the step |\n|---|---|---|---|")
    rows = [(name, count, count * seconds[name]) for name, (count, _) in parts.items()]
    for name, count, spent in [*rows, ("all passes", 1, total), ("step", 1, seconds["step"])]:
        print(f"| {name} | {count} | {1e3 * spent:.0f} | {spent / seconds['step']:.2f} |")


if __name__ == "__main__":
    main()
