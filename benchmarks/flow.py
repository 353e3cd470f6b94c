"""How fast flow is computed: `python benchmarks/flow.py [--size 128 168]`.

Maps a second of each provider: OpenCV's DIS in one thread, level 0 of HCML as it is shipped, RAFT with random weights
(its work does not depend on them), all from frame to frame of the same clips. Times are medians of rounds in turn;
programs of 2 seconds and more are timed once. With `--torchvision`, beside its RAFT on the same processor.
"""

import argparse
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from timing import medians

from data_pipelines.flow import dis_flow
from hcml_jax.flow_networks import flow_network
from hcml_jax.models.raft import RAFT


def raft(size: str, clips: jax.Array):
    """RAFT's flow of clips, with random weights."""
    network = RAFT(size)
    variables = jax.jit(network.init)(jax.random.key(0), clips[:1].astype(jnp.float32))
    return jax.jit(lambda clips: network.apply(variables, clips.astype(jnp.float32) / 255))


def their_raft(size: str, clips: np.ndarray):
    """torchvision's RAFT, of the pairs of frames of clips."""
    import torch

    # PyTorch's CPU build lacks operators that torchvision registers shapes for when it is imported.
    with mock.patch.object(torch.library, "register_fake", lambda *_, **__: lambda function: function):
        from torchvision.models import optical_flow
    network = getattr(optical_flow, f"raft_{size}")(weights=None).eval()
    frames = torch.from_numpy(np.moveaxis(clips, -1, 2).astype(np.float32) / 127.5 - 1)
    first, second = frames[:, :-1].flatten(0, 1), frames[:, 1:].flatten(0, 1)

    @torch.inference_mode()
    def flow():
        return network(first, second)[-1].numpy()

    return flow


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, nargs=2, default=(128, 168), help="height and width")
    parser.add_argument("--clips", type=int, default=2)
    parser.add_argument("--frames", type=int, default=9, help="of a clip")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--torchvision", action="store_true")
    arguments = parser.parse_args()
    shape, maps = (arguments.clips, arguments.frames, *arguments.size, 3), arguments.clips * (arguments.frames - 1)
    clips = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    placed = jax.device_put(clips)
    networks = {
        "level 0 of HCML (sprites)": jax.jit(flow_network("hcml:sprites")),
        "RAFT small, 12 updates": raft("small", placed),
        "RAFT large, 12 updates": raft("large", placed),
    }
    runs = {"DIS, one thread": lambda: np.stack([dis_flow(clip) for clip in clips])}
    runs |= {name: lambda network=network: network(placed) for name, network in networks.items()}
    if arguments.torchvision:
        runs |= {f"torchvision's RAFT {size}": their_raft(size, clips) for size in ("small", "large")}
    for run in runs.values():  # compiles
        jax.block_until_ready(run())
    seconds = medians(runs, arguments.rounds)
    height, width = arguments.size
    print(f"| {height} x {width} | ms a map | maps a second |\n|---|---|---|")
    for name, spent in seconds.items():
        print(f"| {name} | {1e3 * spent / maps:.1f} | {maps / spent:.1f} |")


if __name__ == "__main__":
    main()
