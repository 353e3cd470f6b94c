"""A step of each backbone beside PyTorch's: two processes take turns, so that both meet the same moments of a machine.

python benchmarks/backbones.py [--networks r3d_18 s3d] [--inference] [--dtype bfloat16]

Needs PyTorch (`make test-parity` installs it). A step is forward to the class scores, gradient of their sum of
squares, and plain gradient descent; with --inference, forward alone. Prints a table: medians of both, their ratio, and
the quartiles of the ratio of neighbouring steps.
"""

import argparse
import subprocess
import sys
import time

import numpy as np

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


def our_step(name: str, inference: bool, dtype: str):
    """A function that runs one step of ours."""
    import flax.linen as nn
    import jax
    import jax.numpy as jnp

    from hcml_jax.models import Classifier, build_backbone

    class Recogniser(nn.Module):
        @nn.compact
        def __call__(self, clip, train):
            embedding, _ = build_backbone(name, dtype=jnp.dtype(dtype))(clip, train)
            return Classifier(CLASSES.get(name, 400))(embedding)

    model = Recogniser()
    clip = jnp.asarray(np.random.default_rng(0).normal(size=NETWORKS[name]), jnp.float32)
    variables = jax.jit(lambda key: model.init(key, clip, False))(jax.random.key(0))
    if inference:
        forward = jax.jit(lambda variables: model.apply(variables, clip, False))
        return lambda: jax.block_until_ready(forward(variables))

    def train(variables):
        def loss(params):
            given = {**variables, "params": params}
            scores, state = model.apply(given, clip, True, mutable=["batch_stats"])
            return jnp.square(scores).sum(), state

        gradients, state = jax.grad(loss, has_aux=True)(variables["params"])
        params = jax.tree.map(lambda p, g: p - 1e-6 * g, variables["params"], gradients)
        return {**variables, **state, "params": params}

    state, step = [variables], jax.jit(train, donate_argnums=0)

    def run():
        state[0] = jax.block_until_ready(step(state[0]))

    return run


def their_step(name: str, inference: bool, dtype: str):
    """A function that runs one step of PyTorch's."""
    import torch

    from tests.parity.networks import NETWORKS as MAKERS

    device = "cuda" if torch.cuda.is_available() else "cpu"
    network = MAKERS[name][0]().train(not inference).to(device)
    clip = torch.randn(*NETWORKS[name], device=device).movedim(-1, 1).contiguous()
    for module in network.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0  # ours is off without a key
    if name == "resnet_18":
        clips, frames = NETWORKS[name][:2]
        clip = clip.movedim(2, 1).flatten(0, 1).contiguous()
        network = torch.nn.Sequential(network, torch.nn.Unflatten(0, (clips, frames)))
    optimizer = torch.optim.SGD(network.parameters(), 1e-6)
    cast = torch.autocast(device, getattr(torch, dtype), enabled=dtype != "float32")

    def wait():
        if device == "cuda":
            torch.cuda.synchronize()

    def infer():
        with torch.inference_mode(), cast:
            network(clip)
        wait()

    def train():
        optimizer.zero_grad()
        with cast:
            scores = network(clip).float()
            loss = (scores.mean(1) if name == "resnet_18" else scores).square().sum()
        loss.backward()
        optimizer.step()
        wait()

    return infer if inference else train


def work(side: str, options: argparse.Namespace) -> None:
    """Runs a step for each line that comes in, and answers with its seconds."""
    make = our_step if side == "ours" else their_step
    step = make(options.networks[0], options.inference, options.dtype)
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
    sides = [
        subprocess.Popen(
            [sys.executable, __file__, "--side", side, *flags],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
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
