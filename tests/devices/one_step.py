"""One step of each stage of each method on the devices there are: `python -m tests.devices.one_step OUT.npz [flags]`.

A program of its own, because the number of devices is fixed before jax starts.
"""

import argparse

import jax
import numpy as np

from hcml_jax import cluster
from hcml_jax.methods import build_method
from hcml_jax.training.mesh import Layout, make_mesh
from hcml_jax.training.optimizer import make_optimizer
from hcml_jax.training.step import init_state, init_variables, make_train_step
from tests.methods import fima as small_fima
from tests.methods import test_cgm_net, test_mscl, tiny
from tests.methods.stages import leaves

CLIPS = 16


def own_part(batch):
    """The part of a batch that this process reads."""
    size = CLIPS // jax.process_count()
    own = slice(jax.process_index() * size, (jax.process_index() + 1) * size)
    return jax.tree.map(lambda array: array[own], batch)


def away_from_kinks(variables):
    """With a flow of a third of a pixel: at a flow of zero the warp's gradient jumps with the last bit of the flow."""
    if "heads" in variables["params"]:
        flow = variables["params"]["heads"]["level0"]["flow"]
        flow["bias"] = flow["bias"] + 0.37
    return variables


def cases():
    """Name -> a method, its stage, the shape and the seed of its clips: of these, no ReLU switches with the order of
    sums."""
    hcml = tiny.hcml(joint_batch_norm_group=8, flip=True)
    rest = {"queue": 1024, "rotated_weight": 0.5, "momentum_steps": 4}
    mscl = build_method(test_mscl.CONFIG | rest, num_classes=0)
    fima = build_method(small_fima.CONFIG | {"queue": 1024, "pixel_group": 4, "difference_weight": 0.5}, num_classes=0)
    found = {stage.name: (hcml, stage, tiny.CLIP_SHAPE, 5) for stage in hcml.stages}
    found["mscl"] = mscl, mscl.stages[0], tiny.CLIP_SHAPE, 5
    found["fima"] = fima, fima.stages[0], (8, 32, 32, 3), 8
    cgm_net = build_method(test_cgm_net.CONFIG | {"batch_norm_group": 8, "flip": True}, num_classes=3)
    found["cgm_net"] = cgm_net, cgm_net.stages[1], test_cgm_net.CLIP_SHAPE, 5
    return found


def steps(layout, names):
    """Name -> array: the state after one step of each case, and what it reports.

    The optimizer's trace after a first step is the gradient.
    """
    found = {}
    for name, case in cases().items():
        if not names or name in names:
            named = leaves(jax.device_get(one_step(*case, layout)))
            found |= {f"{name}/{key}": array for key, array in named.items()}
    return found


def one_step(method, stage, clip_shape, seed, layout):
    """The state after a step, and the metrics, whole on every device."""
    optimizer = make_optimizer(stage.schedule, clips=CLIPS, batch_size=CLIPS)
    variables = away_from_kinks(init_variables(method, clip_shape, 0, layout))
    state = init_state(variables, stage, optimizer, layout)
    if jax.device_count() > 1 and "queue" in state.variables:
        queues = [x for x in jax.tree.leaves(state.variables["queue"]) if x.ndim == 2]
        assert queues and not any(x.sharding.is_fully_replicated for x in queues)
    if layout.shard_state:
        assert any(not x.sharding.is_fully_replicated for x in jax.tree.leaves(state.variables["params"]))
    step = make_train_step(method, stage, optimizer, 0, layout)
    batch = tiny.batch(CLIPS, seed, clip_shape, reads=stage.reads)._replace(box=small_fima.boxes(CLIPS))
    given = state, layout.shard_batch(own_part(batch))
    program = step.lower(*given).compile()
    cluster.meet()  # the first collective gives up after half a minute, and one process may compile for longer
    outputs = program(*given)
    return jax.jit(lambda tree: tree, out_shardings=layout.replicated)(outputs)


def main():
    """Saves what the steps gave, from the first process."""
    parser = argparse.ArgumentParser()
    parser.add_argument("out")
    parser.add_argument("--cases", nargs="*")
    parser.add_argument("--shard_state", action="store_true")
    parser.add_argument("--form", default="dense")
    for name, kind, default in (("coordinator", str, ""), ("num_processes", int, 0), ("process_id", int, -1)):
        parser.add_argument(f"--{name}", type=kind, default=default)
    flags = parser.parse_args()
    cluster.join(flags.coordinator, flags.num_processes, flags.process_id)
    layout = Layout(make_mesh(), flags.shard_state)
    if flags.form != "dense":
        from hcml_jax.methods import hcml

        hcml.choose_form = lambda *sizes: flags.form
    with jax.set_mesh(layout.mesh):
        found = steps(layout, flags.cases)
    if jax.process_index() == 0:
        np.savez(flags.out, **found)


if __name__ == "__main__":
    main()
