"""Clips in splits, and their batches: the choice and order of rows, for any reader."""

import bisect
import contextlib
import dataclasses
import functools
import hashlib
import json
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from data_pipelines.config import DataConfig, is_network
from data_pipelines.errors import DataError, VideoError
from data_pipelines.flow import opencv
from data_pipelines.loader import batches, import_tensorflow, num_workers
from data_pipelines.sampling import epoch_order, mixed_place, view_generator
from data_pipelines.skipped import SkipLog
from data_pipelines.table import Row, class_families, inside, labelled_rows, list_faults
from hcml_jax.batch import ONE_CLIP, Batch, Reads
from hcml_jax.config import ConfigError, nearest

_ENDLESS = 2**62  # examples


class Reader(Protocol):
    """Makes examples of rows: a `Batch` without its first axis."""

    def example(self, row: Row, label: int, reads: Reads, generator: np.random.Generator | None = None) -> Batch:
        """The clips of `row`: at random with `generator`, evenly spread without; raises VideoError if it cannot."""

    def whole_frame(self, row: Row, number: int) -> tuple[np.ndarray | None, float]:
        """A frame of its video, uint8 `[H, W, 3]`, or None where it is not kept; and the video's frames a second."""

    def flow_fault(self, row: Row, reads: Reads) -> str | None:
        """Why flow cannot be read of the clips of `row`; None if it can."""

    def blank(self, reads: Reads, label: int = -1, index: int = 0) -> Batch:
        """A black example that stands for one that cannot be read; it is not valid."""


class Data:
    """Clips in splits: an implementation of `hcml_jax.batch.Data`, where the interface is documented.

    Attributes:
      config: what it was opened with.
      classes: all classes, even if clips are left out.
      splits: in order of their first rows.
    """

    def __init__(
        self,
        config: DataConfig,
        rows: Sequence[Row],
        classes: tuple[str, ...],
        usable: Sequence[Row],
        reader: Reader,
        skipped: SkipLog,
        future: int,
        network: Callable | None = None,
        ends: Sequence[int] = (),
    ):
        """`rows` are all rows, and `usable` those from which a clip can be taken; `future` and `network` are options of
        `open_data`; of a mixture, `ends` are the ends of each folder's rows."""
        self.config = config
        self.classes = classes
        self.families = class_families(rows)
        self.splits = tuple(dict.fromkeys(row.split for row in usable))
        self._rows = {split: [r for r in usable if r.split == split] for split in self.splits}
        self._of_index = {row.index: row for row in usable}
        self._labels = {name: i for i, name in enumerate(self.classes)}
        self.labelled = labelled_rows(usable, config.labels_per_class, config.labels_seed)
        self._reader, self._skipped, self._future, self._network = reader, skipped, future, network
        self._ends = (*ends, len(rows))

    @property
    def clip_shape(self) -> tuple[int, int, int, int]:
        """(T, H, W, 3) of every clip."""
        return self.config.frames, self.config.crop, self.config.crop, 3

    @property
    def census(self) -> dict[str, Any]:
        """Plain values that identify these clips: the number in each split, a digest of their rows in order, and that
        of the network that computes their flow."""
        rows = [
            (row.index, inside(self.config.root, row.path), row.label, row.split, row.start, row.end)
            for split in self.splits
            for row in self.rows(split)
        ]
        digest = hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:16]
        flow = {"flow": self._network.digest} if self._network else {}
        return {split: self.num_clips(split) for split in self.splits} | {"digest": digest} | flow

    @property
    def sampling(self) -> dict[str, Any]:
        """Plain values that describe how evaluation takes clips from a video."""
        config = self.config
        size = {"short_side": config.short_side[0], "crop": config.crop}
        return {"frames": config.frames, "stride": config.stride, "short_clips": config.short_clips} | size

    @property
    def skipped(self) -> dict[int, str]:
        """Clips left out so far: row of the table, from 0 -> reason."""
        return self._skipped.entries

    def rows(self, split: str) -> list[Row]:
        """The rows of a split, in table order.

        Raises:
          DataError: there is no such split.
        """
        if split not in self._rows:
            raise DataError(f"{self.config.root}: no clips of split {split!r}. {nearest(split, self.splits)}")
        return self._rows[split]

    def num_clips(self, split: str, labelled_only: bool = False) -> int:
        """Number of clips; with `labelled_only`, of those whose label training may use."""
        rows = self.rows(split)
        if split == "train" and labelled_only:
            return sum(row.index in self.labelled for row in rows)
        return self.num_labelled(split) if labelled_only else len(rows)

    def num_labelled(self, split: str) -> int:
        """Number of clips with a label, whether training may use it or not."""
        return sum(bool(row.label) for row in self.rows(split))

    def video(self, row: int) -> str:
        """The path of the video in this row of the table, relative to the root if it lies there, and its segment."""
        found = self._of_index[row]
        name, whole = inside(self.config.root, found.path), (found.start, found.end) == (0, math.inf)
        return name if whole else f"{name} {found.start:g}-{found.end:g}"

    def whole_frame(self, row: int, number: int) -> tuple[np.ndarray | None, float]:
        """See `Reader.whole_frame`; `row` of the table."""
        return self._reader.whole_frame(self._of_index[row], number)

    def flow_fault(self, split: str) -> str | None:
        """See `hcml_jax.batch.Data`."""
        if is_network(self.config.flow):
            return None if self._network else f"it is {self.config.flow}'s, and open_data was given no such network"
        if self.config.flow == "dis":
            opencv()
        reads = Reads(future=self._future, flow=True)
        faults = [fault for row in self.rows(split) if (fault := self._reader.flow_fault(row, reads))]
        return f"no flow of {len(faults)} clips of split {split!r}:{list_faults(faults)}" if faults else None

    @property
    def flow_is_true(self) -> bool:
        """See `hcml_jax.batch.Data`."""
        return self.config.flow == "truth"

    def complete(self, batch: Batch, reads: Reads) -> Batch:
        """See `hcml_jax.batch.Data`."""
        if not (reads.flow and self._network):
            return batch
        return batch._replace(flow=_flow_by(self._network, batch.clip, batch.future))

    def warm_up(self) -> None:
        """Begins, in the background, the seconds of preparation for which the first batch would wait."""
        threading.Thread(target=_prepare).start()

    def spread(self, split: str, count: int, labelled_only: bool = False) -> list[int]:
        """Numbers (`index`) of `count` clips, or of all, spread evenly over a split; or over those with a label."""
        rows = [row for row in self.rows(split) if row.label or not labelled_only]
        places = np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(int)
        return [rows[place].index for place in places]

    def train_batches(
        self,
        batch_size: int,
        *,
        seed: int,
        stage: str,
        reads: Reads = ONE_CLIP,
        first_step: int = 0,
        labelled_only: bool = False,
        shard_index: int = 0,
        num_shards: int = 1,
    ) -> Iterator[Batch]:
        """See `hcml_jax.batch.Data`.

        Every epoch visits each video once, in its own random order. With `skip_bad`, a video that turns out to be
        broken is replaced by the next one in that order, and recorded in `skipped`.

        Raises:
          ConfigError: the batch does not divide into shards.
          DataError: there is nothing to train on, no flow though it is to be read, or a video turns out to be
            broken, without `skip_bad`.
        """
        local = _shard_size(batch_size, shard_index, num_shards)
        rows, reads = self._readable("train", reads)
        if labelled_only:
            rows = [row for row in rows if row.index in self.labelled]
        if not rows:
            raise DataError(f"{self.config.root}: split 'train' has no labelled clips")

        sources, shares = self._sources(rows)

        def read(number: int) -> Batch:
            step, place = divmod(number, local)
            number = step * batch_size + shard_index * local + place
            source = 0
            if len(sources) > 1:
                source, number = mixed_place(number, shares, seed, stage)
            return self._train_example(sources[source], (seed, stage), reads, number)

        return self._batches(read, (first_step * local, _ENDLESS // local * local), local, reads)

    def eval_batches(
        self,
        split: str,
        batch_size: int,
        *,
        reads: Reads = ONE_CLIP,
        only: Sequence[int] | None = None,
        shard_index: int = 0,
        num_shards: int = 1,
    ) -> Iterator[Batch]:
        """See `hcml_jax.batch.Data`.

        `valid` is False for repeats of the last video, which pad the last batch, and, with `skip_bad`, for black clips
        in place of videos that turn out to be broken.

        Raises:
          ConfigError: the batch does not divide into shards.
          DataError: there is no such split, no flow though it is to be read, a file of flow does not fit its video,
            or a video turns out to be broken, without `skip_bad`.
        """
        local = _shard_size(batch_size, shard_index, num_shards)
        rows, reads = self._readable(split, reads)
        if only is not None:
            rows = [self._of_index[index] for index in only]

        def read(number: int) -> Batch:
            step, place = divmod(number, local)
            place += step * batch_size + shard_index * local
            example = self._eval_example(rows[min(place, len(rows) - 1)], reads)
            return example if place < len(rows) else example._replace(valid=np.bool_(False))

        return self._batches(read, (0, -(-len(rows) // batch_size) * local), local, reads)

    def _readable(self, split: str, reads: Reads) -> tuple[list[Row], Reads]:
        """The rows of a split, checked to provide `reads`; and the part of `reads` that is read here, which excludes
        flow that a network computes."""
        if reads.future > self._future:
            raise ValueError(f"open_data was told of {self._future} frames behind a clip: {reads}")
        if reads.flow and (fault := self.flow_fault(split)):
            raise DataError(f"{self.config.root}: {fault}")
        return self.rows(split), dataclasses.replace(reads, flow=reads.flow and not self._network)

    def _sources(self, rows: Sequence[Row]) -> tuple[list[list[Row]], tuple[float, ...]]:
        """The training rows of each folder of a mixture that has any, and their shares."""
        given = [share for _, share in self.config.mixture]
        of_folder = [[] for _ in self._ends]
        for row in rows:
            of_folder[bisect.bisect_right(self._ends, row.index)].append(row)
        pairs = zip(of_folder, [1 - sum(given), *given], strict=True)
        sources, shares = zip(*((one, share) for one, share in pairs if one), strict=True)
        return list(sources), tuple(share / sum(shares) for share in shares)

    def _batches(self, read, numbers: tuple[int, int], size: int, reads: Reads) -> Iterator[Batch]:
        return batches(read, numbers, size, self._reader.blank(reads), num_workers(self.config))

    def _train_example(self, rows: Sequence[Row], key: tuple, reads: Reads, number: int) -> Batch:
        epoch, position = divmod(number, len(rows))
        order = epoch_order(len(rows), *key, epoch)
        for shift in range(len(rows)):
            row = rows[order[(position + shift) % len(rows)]]
            label = self._labels[row.label] if row.index in self.labelled else -1
            generator = view_generator(*key, epoch, row.index) if self.config.jitter else None
            try:
                return self._reader.example(row, label, reads, generator)
            except VideoError as error:
                self._leave_out(row, error)
        raise DataError(f"{self.config.root}: not one video of split 'train' can be read")

    def _eval_example(self, row: Row, reads: Reads) -> Batch:
        label = self._labels.get(row.label, -1)
        try:
            return self._reader.example(row, label, reads)
        except VideoError as error:
            self._leave_out(row, error)
            return self._reader.blank(reads, label, row.index)

    def _leave_out(self, row: Row, error: VideoError) -> None:
        """Record a video of which only the beginning could be read; raise DataError unless `skip_bad`."""
        if not self.config.skip_bad:
            raise DataError(f"{error} (skip_bad=True leaves such videos out)") from error
        self._skipped.add(row, str(error))


@functools.partial(jax.jit, static_argnums=0)
def _flow_by(network: Callable, clip: jax.Array, future: jax.Array | None) -> jax.Array:
    """Flow `[B, V, T + F - 1, H, W, 2]` of clips and the frames behind them, by a network."""
    clips = clip if future is None else jnp.concatenate([clip, future], axis=2)
    flow = network(clips.reshape(-1, *clips.shape[2:]))
    return flow.reshape(*clips.shape[:2], *flow.shape[1:])


def _prepare() -> None:
    # It fails if the program ends meanwhile; code that needs tensorflow imports it again.
    with contextlib.suppress(Exception):
        import_tensorflow()


def _shard_size(batch_size: int, shard_index: int, num_shards: int) -> int:
    if batch_size < 1 or batch_size % num_shards:
        raise ConfigError(f"batch_size: found {batch_size}, must divide by {num_shards} shards")
    if not 0 <= shard_index < num_shards:
        raise ConfigError(f"shard_index: found {shard_index}, must be in 0..{num_shards - 1}")
    return batch_size // num_shards
