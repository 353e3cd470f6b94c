"""Communication and computation of a step of HCML on many devices: `python benchmarks/scaling.py`.

Estimated from shapes alone: multiply-adds, bytes, communication time as a share of computing time, both at the
machines' peak rates, and the fewest clips on each device for which computing takes longer.

With --compiled, for the available devices (XLA_FLAGS=--xla_force_host_platform_device_count=8): the collectives of the
compiled program beside the estimated ones. Nothing is run.
"""

import argparse
import collections
import dataclasses
import functools
import re
import runpy

import jax
import numpy as np

from hcml_jax.batch import Batch, blank_batch
from hcml_jax.methods import build_method
from hcml_jax.methods import hcml as hcml_module
from hcml_jax.methods.base import Stage
from hcml_jax.methods.hcml import HCML
from hcml_jax.models.cost import multiply_adds
from hcml_jax.training import freezing
from hcml_jax.training.mesh import Layout, make_mesh
from hcml_jax.training.optimizer import make_optimizer
from hcml_jax.training.step import abstract_state, abstract_variables, make_train_step

CONFIG = "configs/hcml_kinetics_r2d50.py"
FRAMES = {"r2d_50": 16, "r2plus1d_101": 32}  # of a clip (HCML, supplement 4.2)
CLIPS, CROP, CLASSES = 8, 224, 400  # clips on each device
FORMS = ("dense", "ring")
FLOAT, INT = 4, 4  # bytes


@dataclasses.dataclass(frozen=True)
class Machine:
    """Peaks of one device, a second.

    Attributes:
      bfloat16, float32: multiply-adds; similarities are float32, the network is bfloat16.
      everyone, neighbour: bytes received where all devices exchange at once, and from one neighbour.
    """

    bfloat16: float
    float32: float
    everyone: float
    neighbour: float


MACHINES = {
    # 989 and 67 TFLOP/s; NVLink has 450 GB/s each way in a host of 8; 400 Gb/s a GPU between hosts.
    "H200": Machine(989e12 / 2, 67e12 / 2, 450e9, 450e9),
    "H200, hosts": Machine(989e12 / 2, 67e12 / 2, 50e9, 50e9),
    # 459 TFLOP/s, and float32 in 6 passes; 600 GB/s each way over 6 links, of which a ring takes one.
    "v5p": Machine(459e12 / 2, 459e12 / 12, 600e9, 100e9),
}


@dataclasses.dataclass(frozen=True)
class Contrast:
    """All contrastive terms of a stage.

    Attributes:
      similarities: multiply-adds of one device for all its similarities, once.
      key_gradients: whether keys have gradients.
      bytes: of the keys of all devices.
      owners: bytes of the owners of the keys, which travel with them round the ring.
    """

    similarities: int
    key_gradients: bool
    bytes: int
    owners: int

    def multiply_adds(self, form: str) -> int:
        """Multiply-adds forward and for gradients of queries and keys; the ring recomputes similarities."""
        return self.similarities * (2 + self.key_gradients + (form == "ring"))

    def received(self, form: str) -> int:
        """Bytes of keys, and of their gradients, that a device receives."""
        if form == "ring":
            return 2 * (self.bytes + self.owners) + self.key_gradients * self.bytes
        return (1 + self.key_gradients) * self.bytes


@dataclasses.dataclass(frozen=True)
class Step:
    """What a device does in one step.

    Attributes:
      network: multiply-adds, but for the similarities.
      gradients, statistics: bytes of what is summed over devices.
      contrast: see there.
    """

    network: int
    gradients: int
    statistics: int
    contrast: Contrast

    def sending(self, machine: Machine, form: str, devices: int) -> float:
        """Communication time as a share of computing time."""
        share = (devices - 1) / devices
        sums = 2 * share * (self.gradients + self.statistics) / machine.everyone
        speed = machine.neighbour if form == "ring" else machine.everyone / share
        computing = self.contrast.multiply_adds(form) / machine.float32
        return (sums + self.contrast.received(form) / speed) / (computing + self.network / machine.bfloat16)

    def with_clips(self, clips: int) -> "Step":
        """The same step with another number of clips on each device; `self` has CLIPS."""
        ratio, contrast = clips / CLIPS, self.contrast
        scaled = dataclasses.replace(
            contrast,
            similarities=contrast.similarities * ratio**2,
            bytes=contrast.bytes * ratio,
            owners=contrast.owners * ratio,
        )
        return dataclasses.replace(self, network=self.network * ratio, contrast=scaled)

    def fewest_clips(self, machine: Machine, form: str, devices: int) -> int:
        """Fewest clips on each device such that computing takes longer than sending."""
        fewest = (n for n in range(1, 1000) if self.with_clips(n).sending(machine, form, devices) < 1)
        return next(fewest)


def paper_method(backbone: str) -> HCML:
    """The method of the config for Kinetics, on a backbone."""
    config = runpy.run_path(CONFIG)["get_config"]().to_dict()["method"]
    config["backbone"]["name"] = backbone
    return build_method(config, CLASSES)


def abstract_batch(clips: int, frames: int, sharding=None) -> Batch:
    """Shapes of a batch."""
    shaped = functools.partial(jax.ShapeDtypeStruct, sharding=sharding)
    return blank_batch(clips, (frames, CROP, CROP, 3), like=shaped)


def count_step(method: HCML, stage: Stage, frames: int, clips: int, devices: int) -> Step:
    """Counts from shapes, for so many clips on each device."""
    batch, key = abstract_batch(clips, frames), jax.random.key(0)
    variables = jax.eval_shape(method.init, key, batch)
    selected = freezing.select(variables["params"], stage.trainable)

    def gradient(selected, variables, batch):
        def loss(selected):
            params = freezing.merge(selected, variables["params"])
            return method.loss({**variables, "params": params}, batch, key, stage, train=True)[0]

        return jax.grad(loss)(selected)

    everything = sum(multiply_adds(gradient, selected, variables, batch).values())
    own = count_contrast(method, stage, variables, batch, 1).multiply_adds("dense")
    return Step(
        network=everything - own,
        gradients=FLOAT * sum(x.size for x in jax.tree.leaves(selected)),
        statistics=_statistics(stage, selected, clips),
        contrast=count_contrast(method, stage, variables, batch, devices),
    )


def count_contrast(method: HCML, stage: Stage, variables, batch, devices: int) -> Contrast:
    """Counts the contrastive terms: the queries of a device, the keys of all."""
    similarities, numbers, keys = 0, 0, 0
    clips = jax.ShapeDtypeStruct((batch.label.shape[0], *batch.clip.shape[2:]), np.float32)
    rngs = {"positions": jax.random.key(0)}
    run = functools.partial(method.network.apply, method=method.forward, rngs=rngs)
    _, side = jax.eval_shape(lambda v, x: run(v, x, False), variables, clips)
    for level, (predictions, _, targets, _) in side.futures.items():
        if f"contrastive/{level}" in stage.terms:
            videos, time, positions, channels = targets.shape
            queries = videos * positions * sum(time - 1 - k for k in range(predictions.shape[0]))
            rows = devices * videos * time * positions
            similarities += queries * rows * channels
            numbers += rows * channels
            keys += rows
    return Contrast(similarities, method.config.target_gradients, FLOAT * numbers, INT * keys)


def _statistics(stage: Stage, selected, clips: int) -> int:
    """Bytes of mean and mean square of every channel that trains, and of their gradients."""
    if stage.batch_norm_group and clips % stage.batch_norm_group == 0:
        return 0  # every group lies on one device
    named = jax.tree_util.tree_flatten_with_path(selected)[0]
    scales = [x.size for path, x in named if freezing.path_names(path)[-1] == "scale"]
    return 4 * FLOAT * sum(scales)


def set_form(form: str) -> None:
    """Makes the method take this form of InfoNCE, where it would choose."""
    hcml_module.choose_form = lambda *sizes: form


def print_paper(backbones: list[str], counts: list[int]) -> None:
    """The table on paper."""
    set_form("dense")
    kinds = [(name, form) for name in MACHINES for form in FORMS]
    heads = ["network", "similarities", "gradients", "statistics", "keys, dense", "keys, ring"]
    shares = [f"{name}, {form}" for name, form in kinds]
    print(f"| backbone, stage | devices | {' | '.join(heads + shares)} |")
    print("|---" * (2 + len(heads) + len(shares)) + "|")
    for backbone in backbones:
        method = paper_method(backbone)
        for stage in method.stages:
            for devices in counts:
                step = count_step(method, stage, FRAMES[backbone], CLIPS, devices)
                work = [step.network, step.contrast.multiply_adds("dense")]
                sizes = [step.gradients, step.statistics, *map(step.contrast.received, FORMS)]
                cells = [f"{x / 1e9:,.0f} G" for x in work] + [mebibytes(x) for x in sizes]
                for name, form in kinds:
                    machine = MACHINES[name]
                    fewest = step.fewest_clips(machine, form, devices)
                    cells.append(f"{step.sending(machine, form, devices):.0%}, {fewest}")
                print(f"| {backbone}, {stage.name} | {devices} | {' | '.join(cells)} |", flush=True)


def mebibytes(size: float) -> str:
    """A number of bytes for a table."""
    return f"{size / 2**20:,.2f}"


KINDS = ("all-reduce", "all-gather", "reduce-scatter", "collective-permute", "all-to-all")
_BYTES = {"f32": 4, "bf16": 2, "s32": 4, "u32": 4, "u8": 1, "pred": 1, "f16": 2, "s64": 8, "u64": 8}
_OPERATION = re.compile(rf"= (.*?) ({'|'.join(KINDS)})(?:-start)?\(")
_ARRAY = re.compile(rf"\b({'|'.join(_BYTES)})\[([\d,]*)\]")


def read_collectives(program: str) -> tuple[dict[str, int], int]:
    """Bytes of the results of each kind of collective in the text of a compiled program, and how many there are."""
    found: dict[str, int] = collections.Counter()
    operations = _OPERATION.findall(program)
    for result, kind in operations:
        for dtype, shape in _ARRAY.findall(result):
            found[kind] += _BYTES[dtype] * int(np.prod([int(n) for n in shape.split(",") if n]))
    return found, len(operations)


def compile_step(method: HCML, stage: Stage, frames: int, layout: Layout):
    """The compiled step of a stage, from shapes alone."""
    clips = CLIPS * layout.mesh.size
    split = jax.sharding.NamedSharding(layout.mesh, jax.P("data"))
    optimizer = make_optimizer(stage.schedule, 10**5, clips)
    variables = abstract_variables(method, (frames, CROP, CROP, 3), layout)
    state = abstract_state(variables, stage, optimizer, layout)
    step = make_train_step(method, stage, optimizer, 0, layout)
    return step.lower(state, abstract_batch(clips, frames, split)).compile()


def print_compiled(backbones: list[str]) -> None:
    """The table of the compiled programs, on paper and as compiled."""
    layout = Layout(make_mesh())
    devices = layout.mesh.size
    names = ["summed", "gathered", "round the ring"]
    heads = [f"{name}, {where}" for name in names for where in ("paper", "compiled")]
    print(f"| backbone, stage, form | {' | '.join(heads)} | others | collectives |")
    print("|---" * (3 + len(heads)) + "|")
    for backbone in backbones:
        method, frames = paper_method(backbone), FRAMES[backbone]
        for stage in method.stages:
            set_form("dense")
            step = count_step(method, stage, frames, CLIPS, devices)
            for form in FORMS if step.contrast.bytes else FORMS[:1]:
                set_form(form)
                with jax.set_mesh(layout.mesh):
                    program = compile_step(method, stage, frames, layout).as_text()
                sent, number = read_collectives(program)
                keys = step.contrast.received(form)
                # The text holds the body of the ring's loop once.
                pairs = [
                    (step.gradients + step.statistics, sent.pop("all-reduce", 0)),
                    (keys * (form == "dense"), sent.pop("all-gather", 0)),
                    (keys * (form == "ring"), sent.pop("collective-permute", 0) * devices),
                ]
                cells = [mebibytes(x) for pair in pairs for x in pair]
                others = mebibytes(sum(sent.values()))
                row = f"{backbone}, {stage.name}, {form} | {' | '.join(cells)} | {others} | {number}"
                print(f"| {row} |", flush=True)


def main() -> None:
    """Prints one of the two tables; bytes in MiB, multiply-adds of one device."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbones", nargs="+", default=list(FRAMES), choices=FRAMES)
    parser.add_argument("--devices", type=int, nargs="+", default=[8, 64, 512])
    parser.add_argument("--compiled", action="store_true")
    arguments = parser.parse_args()
    if arguments.compiled:
        print_compiled(arguments.backbones)
    else:
        print_paper(arguments.backbones, arguments.devices)


if __name__ == "__main__":
    main()
