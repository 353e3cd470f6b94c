"""What a step of each stage costs, against the joint step: `python benchmarks/stages.py [--config FILE]`.

Times are medians of rounds in which every stage takes one step, so that a change in the machine's speed meets all
alike. Memory is the compiler's: bytes of temporaries of the compiled step.
"""

import argparse
import runpy
import statistics
import time

import jax
import numpy as np

from hcml_jax.batch import blank_batch
from hcml_jax.methods import build_method
from hcml_jax.training.mesh import Layout, make_mesh
from hcml_jax.training.optimizer import make_optimizer
from hcml_jax.training.step import init_state, init_variables, make_train_step


def compile_stages(config: dict, classes: int):
    """Stage name -> (compiled step, its state, its batch)."""
    method = build_method(config["method"], classes)
    size, data = config["training"]["batch_size"], config["data"]
    rng, layout = np.random.default_rng(0), Layout(make_mesh())
    clip_shape = (data["frames"], data["crop"], data["crop"], 3)
    batch = blank_batch(size, clip_shape)
    batch = batch._replace(
        clip=rng.integers(0, 256, batch.clip.shape, dtype=np.uint8),
        consecutive=np.ones_like(batch.consecutive),
        label=rng.integers(0, classes, size, dtype=np.int32),
    )
    batch = jax.device_put(batch, layout.replicated)
    compiled = {}
    for stage in method.stages:
        optimizer = make_optimizer(stage.schedule, 1000, size)
        state = init_state(init_variables(method, clip_shape, 0, layout), stage, optimizer, layout)
        step = make_train_step(method, stage, optimizer, 0, layout)
        compiled[stage.name] = (step.lower(state, batch).compile(), state, batch)
    return compiled


def measure(compiled, rounds: int) -> dict[str, list[float]]:
    """Seconds of `rounds` steps of each stage, in turn; a first round is not counted."""
    seconds = {name: [] for name in compiled}
    states = {name: state for name, (_, state, _) in compiled.items()}
    for number in range(rounds + 1):
        for name, (step, _, batch) in compiled.items():
            start = time.perf_counter()
            states[name], metrics = step(states[name], batch)
            jax.block_until_ready(metrics)
            if number:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", default="configs/hcml_sprites.py")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--classes", type=int, default=16)
    arguments = parser.parse_args()
    config = runpy.run_path(arguments.config)["get_config"]().to_dict()
    compiled = compile_stages(config, arguments.classes)
    seconds = measure(compiled, arguments.rounds)
    last = list(compiled)[-1]
    joint = statistics.median(seconds[last])
    print("| stage | ms a step | of the joint step | temporaries, MiB |\n|---|---|---|---|")
    for name, (step, _, _) in compiled.items():
        median = statistics.median(seconds[name])
        memory = step.memory_analysis().temp_size_in_bytes / 2**20
        print(f"| {name} | {1e3 * median:.0f} | {median / joint:.2f} | {memory:.0f} |")


if __name__ == "__main__":
    main()
