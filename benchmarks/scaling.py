"""What a step sends and computes: `XLA_FLAGS=--xla_force_host_platform_device_count=8 python benchmarks/scaling.py`.

Compiles a step of each stage of a config for the devices there are, runs nothing, and reads the collectives back from
the compiled program: how many bytes of arrays each kind moves, one device's part of the batch at a time.
"""

import argparse
import collections
import re
import runpy

import jax
import numpy as np

from hcml_jax.methods import build_method
from hcml_jax.methods import hcml as hcml_module
from hcml_jax.training.mesh import Layout, make_mesh
from hcml_jax.training.optimizer import make_optimizer
from hcml_jax.training.step import abstract_state, abstract_variables, make_train_step

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "collective-permute", "all-to-all")
_BYTES = {"f32": 4, "bf16": 2, "s32": 4, "u32": 4, "u8": 1, "pred": 1, "f16": 2, "s64": 8, "u64": 8}
_OPERATION = re.compile(rf"= (.*?) ({'|'.join(KINDS)})(?:-start)?\(")
_ARRAY = re.compile(rf"\b({'|'.join(_BYTES)})\[([\d,]*)\]")


def collectives(program: str) -> dict[str, int]:
    """Bytes of the results of each kind of collective in the text of a compiled program; loops count once."""
    found: dict[str, int] = collections.Counter()
    for result, kind in _OPERATION.findall(program):
        for dtype, shape in _ARRAY.findall(result):
            sizes = [int(size) for size in shape.split(",") if size]
            found[kind] += _BYTES[dtype] * int(np.prod(sizes))
    return dict(found)


def compile_step(method, stage, config, layout: Layout):
    """The compiled step of a stage, from shapes alone."""
    size, data = config["training"]["batch_size"], config["data"]
    shape = (data["frames"], data["crop"], data["crop"], 3)
    split = jax.sharding.NamedSharding(layout.mesh, jax.P("data"))
    batch = {
        "clip": jax.ShapeDtypeStruct((size, *shape), np.uint8, sharding=split),
        "label": jax.ShapeDtypeStruct((size,), np.int32, sharding=split),
    }
    optimizer = make_optimizer(stage.schedule, 10**5, size)
    variables = abstract_variables(method, shape, layout)
    state = abstract_state(variables, stage, optimizer, layout)
    return make_train_step(method, stage, optimizer, 0, layout).lower(state, batch).compile()


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", default="configs/hcml_kinetics_r2d50.py")
    parser.add_argument("--clips", type=int, default=8, help="on each device")
    parser.add_argument("--classes", type=int, default=400)
    parser.add_argument("--forms", nargs="+", default=["dense", "ring"])
    parser.add_argument("--stages", nargs="+", default=["level0", "level1", "level2", "joint"])
    arguments = parser.parse_args()
    layout = Layout(make_mesh())
    config = runpy.run_path(arguments.config)["get_config"]().to_dict()
    config["training"]["batch_size"] = arguments.clips * layout.mesh.size
    method = build_method(config["method"], arguments.classes)
    print(
        f"| stage, form ({layout.mesh.size} devices) | {', MiB | '.join(KINDS)}, MiB | G multiply-adds |"
    )
    print("|---" * (len(KINDS) + 2) + "|")
    for stage in method.stages:
        if stage.name not in arguments.stages:
            continue
        for form in arguments.forms:
            hcml_module.choose_form = lambda *sizes, form=form: form
            with jax.set_mesh(layout.mesh):
                step = compile_step(method, stage, config, layout)
            sent = collectives(step.as_text())
            cells = [f"{sent.get(kind, 0) / 2**20:,.2f}" for kind in KINDS]
            work = step.cost_analysis().get("flops", float("nan")) / 2e9
            print(f"| {stage.name}, {form} | {' | '.join(cells)} | {work:,.0f} |", flush=True)


if __name__ == "__main__":
    main()
