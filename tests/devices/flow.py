"""Flow of a network on the devices there are: `python -m tests.devices.flow OUT.npz [flags]`."""

import argparse

import jax
import numpy as np

from data_pipelines import DataConfig, SpritesConfig, open_data
from hcml_jax import cluster
from hcml_jax.batch import Reads
from hcml_jax.flow_networks import flow_network
from hcml_jax.training.mesh import Layout, make_mesh

READS = Reads(future=1, flow=True)
SPRITES = {"size": 32, "radius": (5.0, 6.0), "pair_radius": (3.0, 4.0), "closing_speed": (1.0, 1.5), "frames": 8}


def main():
    """Saves the flow of the first batch, from the first process."""
    parser = argparse.ArgumentParser()
    parser.add_argument("out")
    for name, kind, default in (("coordinator", str, ""), ("num_processes", int, 0), ("process_id", int, -1)):
        parser.add_argument(f"--{name}", type=kind, default=default)
    flags = parser.parse_args()
    cluster.join(flags.coordinator, flags.num_processes, flags.process_id)
    sprites = SpritesConfig(**SPRITES, rendered=True, train_per_class=1, val_per_class=0, test_per_class=0)
    sizes = {"frames": 4, "stride": 1, "short_side": (32, 32), "crop": 32}
    config = DataConfig("", sprites=sprites, **sizes, flow="hcml:sprites")
    data = open_data(config, future=1, network=flow_network(config.flow))
    layout = Layout(make_mesh())
    batch = next(data.train_batches(8, seed=0, stage="contrast", reads=READS, **cluster.shard()))
    batch = data.complete(layout.shard_batch(batch), READS)
    assert batch.flow.sharding.is_equivalent_to(batch.clip.sharding, batch.flow.ndim)
    assert batch.flow.addressable_shards[0].data.shape[0] == 8 // jax.device_count()
    flow = jax.jit(lambda x: x, out_shardings=layout.replicated)(batch.flow)
    if jax.process_index() == 0:
        np.savez(flags.out, flow=flow)


if __name__ == "__main__":
    main()
