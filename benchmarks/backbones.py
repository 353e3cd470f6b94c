"""A step of each backbone beside PyTorch's: two processes take turns, so that both run under the same machine load.

python benchmarks/backbones.py [--networks r3d_18 s3d] [--inference] [--dtype bfloat16]

Needs PyTorch (`make test-parity` installs it). A step is forward to the class scores, gradient of their sum of
squares, and plain gradient descent; with --inference, forward alone. Prints a table: medians of both, their ratio, and
the quartiles of the ratio of neighbouring steps.
"""

import argparse
import importlib.util
import os
import pathlib
import subprocess
import sys
import time
import types
from unittest import mock

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))  # where `tests` is

# backbone -> clips [B, T, H, W, 3]
NETWORKS = {
    "resnet_18": (2, 16, 112, 112, 3),
    "r3d_18": (2, 16, 112, 112, 3),
    "r2plus1d_18": (2, 16, 112, 112, 3),
    "s3d": (2, 16, 224, 224, 3),
    "i3d": (2, 16, 224, 224, 3),
    "resnet3d_18": (2, 16, 112, 112, 3),
    "resnet3d_50": (2, 16, 112, 112, 3),
    "resnext3d_101": (2, 16, 112, 112, 3),
    "slowfast_r50_8x8": (2, 32, 112, 112, 3),
    "c3d": (2, 16, 112, 112, 3),
}
CLASSES = {"resnet_18": 1000, "c3d": 487}  # of theirs; 400 in the others


def recogniser(name: str, dtype: str, motion_blocks: bool = False):
    """Ours: the backbone and a classifier of as many classes as theirs."""
    import flax.linen as nn
    import jax.numpy as jnp

    from hcml_jax.models import Classifier, build_backbone

    class Recogniser(nn.Module):
        @nn.compact
        def __call__(self, clip, train):
            backbone = build_backbone(name, motion_blocks=motion_blocks, dtype=jnp.dtype(dtype))
            embedding, _ = backbone(clip, train)
            return Classifier(CLASSES.get(name, 400))(embedding)

    return Recogniser()


def abstract_variables(model, shape: tuple[int, ...]):
    """Shapes of the variables of ours."""
    import jax
    import jax.numpy as jnp

    return jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros(shape), False))


def random_variables(model, shape: tuple[int, ...]):
    """Variables of ours, made by numpy: to compile their initialisation takes long on a GPU."""
    import jax
    import jax.numpy as jnp

    rng = np.random.default_rng(0)

    def draw(leaf):
        kernel = len(leaf.shape) > 1
        return jnp.array(rng.normal(0, 0.05, leaf.shape) if kernel else np.ones(leaf.shape), leaf.dtype)

    return jax.tree.map(draw, abstract_variables(model, shape))


def our_step(name, shape, dtype, inference=False, motion_blocks=False):
    """A function that runs one step of ours, and what compiling says of it (`timing.compiled`)."""
    import jax
    import jax.numpy as jnp
    from timing import compiled

    model = recogniser(name, dtype, motion_blocks)
    clip = jax.random.normal(jax.random.key(0), shape)
    state = [random_variables(model, shape)]

    def infer(variables, clip):
        return model.apply(variables, clip, False)

    def train(variables, clip):
        def loss(params):
            given = {**variables, "params": params}
            scores, moved = model.apply(given, clip, True, mutable=["batch_stats"])
            return jnp.square(scores).sum(), moved

        gradients, moved = jax.grad(loss, has_aux=True)(variables["params"])
        params = jax.tree.map(lambda p, g: p - 1e-6 * g, variables["params"], gradients)
        return {**variables, **moved, "params": params}

    jitted = jax.jit(infer) if inference else jax.jit(train, donate_argnums=0)
    program, facts = compiled(jitted, state[0], clip)

    def run():
        given = jax.block_until_ready(program(state[0], clip))
        if not inference:
            state[0] = given

    return run, facts


def their_network(name: str):
    """PyTorch's, without dropout: ours is off without a key."""
    import torch

    if importlib.util.find_spec("pytorchvideo") is None:  # a network that is not compared here
        absent = types.SimpleNamespace(create_slowfast=None)
        sys.modules.setdefault("pytorchvideo.models.slowfast", absent)
    with mock.patch.object(torch.library, "register_fake", torch.library.register_fake):
        from tests.parity.networks import NETWORKS as MAKERS  # replaces it
    network = MAKERS[name][0]()
    for module in network.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return network


def laid_out(name: str, shape: tuple[int, ...]):
    """PyTorch's network and a random clip, on a GPU if there is one, where channels lie last."""
    import torch

    on_gpu = torch.cuda.is_available()
    device = "cuda" if on_gpu else "cpu"
    network, layout = their_network(name).to(device), torch.channels_last_3d
    clip = torch.randn(*shape, device=device).movedim(-1, 1)
    if name == "resnet_18":
        clip, layout = clip.movedim(2, 1).flatten(0, 1), torch.channels_last
        network = torch.nn.Sequential(network, torch.nn.Unflatten(0, shape[:2]))
    layout = layout if on_gpu else torch.contiguous_format
    return network.to(memory_format=layout), clip.contiguous(memory_format=layout)


def their_step(name, shape, dtype, inference=False, compiles=False):
    """A function that runs one step of PyTorch's, and, if it `compiles`, its compile facts."""
    import torch

    torch.backends.cudnn.benchmark = True  # convolutions are chosen by trying, as XLA chooses them
    network, clip = laid_out(name, shape)
    network.train(not inference)
    optimizer = torch.optim.SGD(network.parameters(), 1e-6)
    cast = torch.autocast(clip.device.type, getattr(torch, dtype), enabled=dtype != "float32")

    def infer(network):
        with torch.inference_mode(), cast:
            network(clip)

    def train(network):
        optimizer.zero_grad()
        with cast:
            scores = network(clip).float()
            loss = (scores.mean(1) if name == "resnet_18" else scores).square().sum()
        loss.backward()
        optimizer.step()

    def run(network):
        (infer if inference else train)(network)
        if clip.is_cuda:
            torch.cuda.synchronize()

    network, facts = _faster(network, run) if compiles else (network, {})
    return lambda: run(network), facts


def _faster(network, run):
    """The network compiled, or as it is where torch.compile fails ("eager" says why), and seconds and bytes."""
    import torch

    start, facts = time.perf_counter(), {}
    try:
        faster = torch.compile(network)
        run(faster)
    except Exception as error:
        faster, facts["eager"] = network, f"{type(error).__name__}: {error}".splitlines()[0]
    facts["compile"] = time.perf_counter() - start
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        run(faster)
        facts["bytes"] = torch.cuda.max_memory_allocated()
    return faster, facts


def work(side: str, options: argparse.Namespace) -> None:
    """Runs a step for each line that comes in, and answers with its seconds."""
    make, name = our_step if side == "ours" else their_step, options.networks[0]
    step, _ = make(name, NETWORKS[name], options.dtype, options.inference)
    for _ in range(3):
        step()
    print("ready", flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        step()
        print(time.perf_counter() - start, flush=True)


def compare(name: str, options: argparse.Namespace) -> tuple[np.ndarray, np.ndarray]:
    """Seconds of the steps of both, taken in turns."""
    flags = ["--networks", name, "--dtype", options.dtype]
    flags += ["--inference"] if options.inference else []
    both = os.environ | {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}  # on one GPU at a time
    sides = [
        subprocess.Popen(
            [sys.executable, __file__, "--side", side, *flags],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=both,
        )
        for side in ("ours", "theirs")
    ]
    for side in sides:
        if side.stdout.readline() != "ready\n":
            raise SystemExit(f"{name}: one of the two processes failed")
    seconds = []
    for _ in range(options.steps):
        for side in sides:
            side.stdin.write("\n")
            side.stdin.flush()
            seconds.append(float(side.stdout.readline()))
    for side in sides:
        side.stdin.close()
        side.wait()
    return np.array(seconds[::2]), np.array(seconds[1::2])


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=NETWORKS)
    parser.add_argument("--inference", action="store_true")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--steps", type=int, default=7)
    parser.add_argument("--side", choices=("ours", "theirs"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        work(options.side, options)
        return
    print("| backbone | clips | ours, s | PyTorch, s | ratio | quartiles |")
    print("|---|---|---|---|---|---|")
    for name in options.networks:
        ours, theirs = compare(name, options)
        low, middle, high = np.percentile(ours / theirs, (25, 50, 75))
        clips = " x ".join(map(str, NETWORKS[name][:-1]))
        print(
            f"| {name} | {clips} | {np.median(ours):.2f} | {np.median(theirs):.2f} | {middle:.2f} | "
            f"{low:.2f} - {high:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
