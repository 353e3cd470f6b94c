"""The clips of an evaluation: batches of a split, on the devices of this process."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hcml_jax import cluster
from hcml_jax.batch import Batch, Data, Reads
from hcml_jax.evaluation.config import parse_views
from hcml_jax.progress import Progress
from hcml_jax.training.mesh import Layout


@dataclasses.dataclass(frozen=True)
class Clips:
    """Clips of videos, sampled and cropped in one way.

    Attributes:
      data: source of the clips.
      batch_size: clips per batch, over all devices of all processes; at least one per device.
      layout: layout of this process's own devices.
      views: clips and crops of each video: see `EvaluationConfig`.
      crop, short_side: see `EvaluationConfig`.
    """

    data: Data
    batch_size: int
    layout: Layout
    views: str = "1x1"
    crop: int = 0
    short_side: int = 0

    @property
    def reads(self) -> Reads:
        """What a batch holds."""
        views = parse_views(self.views)
        kind = {"crop": self.crop, "short_side": self.short_side}
        return Reads(views.clips, crops=views.squares, corners=views.corners, **kind)

    @property
    def about(self) -> dict[str, Any]:
        """Plain values that identify these clips."""
        sampling = dict(self.data.sampling)
        seen = {name: getattr(self, name) or sampling.get(name) for name in ("crop", "short_side")}
        return {"clips": dict(self.data.census), "sampling": sampling | seen | {"views": self.views}}

    @property
    def count(self) -> int:
        """V, clips of each video."""
        return parse_views(self.views).count

    def rows(self, split: str, labelled_only: bool = False) -> list[int]:
        """The table's rows of a split, or those of them with a label."""
        return list(self.data.spread(split, self.data.num_clips(split), labelled_only))

    def batches(
        self, split: str, rows: Sequence[int] | None = None, *, flow: bool = False, future: int = 0, told: str = ""
    ) -> Iterator[Batch]:
        """This process's part of every batch of a split, or of some rows, its pixels on this process's devices."""
        rows = self.rows(split) if rows is None else rows
        reads = dataclasses.replace(self.reads, flow=flow, future=future)
        size = self.videos
        given = self.data.eval_batches(split, size, reads=reads, only=rows, **cluster.shard())
        name = "[evaluate] " + ", ".join(filter(None, (told, split)))
        with Progress(name, -(-len(rows) // size), "batches") as progress:
            for batch in given:
                pixels = self.layout.shard_batch({"clip": batch.clip, "flow": batch.flow, "future": batch.future})
                seen = batch._replace(**pixels)
                yield with_mirrored(seen) if parse_views(self.views).mirrored else seen
                progress.add()

    @property
    def videos(self) -> int:
        """Videos per batch: the most whose clips are within `batch_size` and that divide over all devices."""
        devices = jax.device_count()
        return max(1, self.batch_size // self.count // devices) * devices


def with_mirrored(batch: Batch) -> Batch:
    """Append the mirrored clips of each video to its clips; flow and future frames are dropped."""
    twice = {name: np.concatenate([getattr(batch, name)] * 2, axis=1) for name in ("box", "start", "consecutive")}
    return batch._replace(clip=_with_mirrored(batch.clip), future=None, flow=None, **twice)


@jax.jit
def _with_mirrored(clips: jax.Array) -> jax.Array:
    return jnp.concatenate([clips, jnp.flip(clips, axis=-2)], axis=1)
