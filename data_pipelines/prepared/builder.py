"""Builders of tensorflow-datasets that prepare videos: one base, a class for each published dataset.

`builder.download_and_prepare(download_config=...)` with a `manual_dir` writes shards by Apache Beam, each whole or not
at all, to a hidden folder beside the final one: work that was interrupted goes on where it stopped.
`python -m data_pipelines.prepare` calls it.
"""

import csv
import dataclasses
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core import dataset_builder

from data_pipelines.check_videos import clean
from data_pipelines.datasets import DATASETS
from data_pipelines.errors import DataError
from data_pipelines.prepared.index import INDEX, Stored, save_index
from data_pipelines.prepared.layouts import FRAMES, Layout
from data_pipelines.prepared.shards import (
    Shard,
    Source,
    Told,
    divide,
    features,
    mean_bytes,
    number_of_shards,
    read_told,
    write_shard,
)
from data_pipelines.table import TABLE, Row, inside, list_faults, read_table, write_table
from hcml_jax import cluster
from hcml_jax.files import new_file, replace_text

SAMPLED = 8  # videos by which the bytes of all are estimated
SPARE = 1.05  # of the estimated bytes must be free
PLAN, REPORT = "plan.json", "report.csv"


@dataclasses.dataclass(kw_only=True)
class PreparedConfig(tfds.core.BuilderConfig):
    """How videos are prepared.

    Attributes:
      layout: how they are stored.
      shard_mb: about how large a shard is, in MB.
      timeout: seconds that a video may take.
      tables: of a folder that is no published dataset, its tables; (): `table.csv`, or none.
      run: calls a function on each shard; it may do so on many machines that share a folder.
    """

    layout: Layout
    run: Callable[[Callable[[Shard], Any], Sequence[Shard]], None]
    shard_mb: float = 256.0
    timeout: float = 600.0
    tables: tuple[str, ...] = ()


class Videos(dataset_builder.FileReaderBuilder, skip_registration=True):
    """The base: a folder of videos, with tables of its own or none.

    Records of layout "frames" are frames: `image` (JPEG), `frame` (its number), `video` (its name) and `label`. Those
    of "video" and "original" are videos: `file` (bytes), `video` and `label`.
    """

    VERSION = tfds.core.Version("1.0.0")
    MANUAL_DOWNLOAD_INSTRUCTIONS = "videos and annotations as published: docs/datasets.md"
    dataset = ""  # name in `DATASETS`; "": a folder
    missing, notes = (), ()  # see `Annotated`

    def __init__(self, **kwargs):
        """See `tfds.core.DatasetBuilder`; `config` is a `PreparedConfig`."""
        super().__init__(file_format="array_record", **kwargs)

    def download_and_prepare(self, **kwargs) -> None:
        """See `tfds.core.DatasetBuilder`.

        Raises:
          DataError: annotations or videos are missing, the disk has no room, or the folder was made of other videos.
        """
        made = Path(self.data_dir) / PLAN
        if made.exists():
            folder = Path(kwargs["download_config"].manual_dir)
            self._check_digest(made, self._digest(_sources(folder, self._tables(folder))))
        super().download_and_prepare(download_dir=self._staging / "downloads", **kwargs)
        shutil.rmtree(self._staging, ignore_errors=True)

    def _log_download_bytes(self) -> None:
        """Says nothing: nothing is downloaded."""

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="Videos, prepared by hcml_jax.",
            features=features(self.builder_config.layout.kind),
            disable_shuffling=True,
        )

    def _tables(self, folder: Path) -> dict[str, list[Row]]:
        """Name -> rows. Raises DataError: annotations, or all videos, are missing."""
        if self.dataset:
            found = DATASETS[self.dataset](folder)
            self.missing, self.notes = found.missing, found.notes
            return found.tables
        names = self.builder_config.tables or ("",)
        return {Path(name or TABLE).stem: read_table(folder, name) for name in names}

    def _download_and_prepare(self, dl_manager, download_config=None) -> None:
        config, folder = self.builder_config, Path(dl_manager.manual_dir)
        tables = self._tables(folder)
        shards = self._plan(_sources(folder, tables), self._staging)
        config.run(write_shard, [shard for of_split in shards.values() for shard in of_split])
        told = {split: [read_told(shard) for shard in of_split] for split, of_split in shards.items()}
        _check_some(told)
        for shard in (shard for of_split in shards.values() for shard in of_split):
            _link(Path(shard.file), Path(self.data_dir))
        self._describe(Path(self.data_dir), folder, tables, told)
        shutil.copyfile(self._staging / PLAN, Path(self.data_dir) / PLAN)
        self.info.set_splits(tfds.core.SplitDict([self._split_info(split, told[split]) for split in shards]))

    @property
    def _staging(self) -> Path:
        return Path(self.data_dir).parent / f".{self.version}.partial"

    def _plan(self, videos: Mapping[str, list[Source]], staging: Path) -> dict[str, list[Shard]]:
        """Split -> its shards in `staging`; as before, where work goes on.

        Raises:
          DataError: it was begun with other videos, or the disk has no room.
        """
        digest, file = self._digest(videos), staging / PLAN
        if file.exists():
            plan = self._check_digest(file, digest)
        else:
            staging.mkdir(parents=True, exist_ok=True)
            every = [video for of_split in videos.values() for video in of_split]
            plan = {"digest": digest, "bytes_each": self._bytes_each(every)}
            _check_room(staging, plan["bytes_each"] * len(every))
            replace_text(file, json.dumps(plan))
        return {split: self._shards(split, of_split, plan["bytes_each"], staging) for split, of_split in videos.items()}

    def _digest(self, videos: Mapping[str, list[Source]]) -> str:
        """Of names, labels and sizes of the videos, and of how they are stored."""
        config = self.builder_config
        made_of = {
            split: [(video.name, video.label, os.stat(video.path).st_size) for video in of_split]
            for split, of_split in videos.items()
        }
        return hashlib.sha256(repr((made_of, config.layout, config.shard_mb)).encode()).hexdigest()

    def _check_digest(self, file: Path, digest: str) -> dict[str, Any]:
        """The plan of a folder that is of these videos."""
        plan = json.loads(file.read_text())
        if plan["digest"] != digest:
            raise DataError(
                f"{file.parent} was made of other videos, labels or shards: delete it, or name another --out"
            )
        return plan

    def _bytes_each(self, videos: Sequence[Source]) -> float:
        sample = [videos[i] for i in np.linspace(0, len(videos) - 1, min(SAMPLED, len(videos))).astype(int)]
        return mean_bytes(sample, self.builder_config.layout, self.builder_config.timeout)

    def _shards(self, split: str, videos: Sequence[Source], bytes_each: float, staging: Path) -> list[Shard]:
        config = self.builder_config
        parts = divide(videos, number_of_shards(len(videos), bytes_each, config.shard_mb * 1e6))
        files = self._template(staging, split).sharded_filepaths(num_shards=len(parts))
        return [Shard(str(file), part, config.layout, config.timeout) for file, part in zip(files, parts, strict=True)]

    def _template(self, folder: Path, split: str) -> tfds.core.ShardedFileTemplate:
        return tfds.core.ShardedFileTemplate(
            data_dir=folder, dataset_name=self.name, split=split, filetype_suffix="array_record"
        )

    def _describe(
        self, out: Path, folder: Path, tables: Mapping[str, Sequence[Row]], told: Mapping[str, list[list[Told]]]
    ) -> None:
        """Writes index, report and tables."""
        frames, stored, verdicts = self.builder_config.layout.kind == FRAMES, [], {}
        for split, of_split in told.items():
            first = 0
            for one in (one for shard in of_split for one in shard):
                verdicts[one.name] = one.verdict
                if one.info is not None:
                    stored.append(Stored(one.name, split, first, one.info))
                    first += one.info.num_frames if frames else 1
        save_index(out / INDEX, stored)
        with new_file(out / REPORT) as partial, partial.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(("video", "verdict", "reason", "frames", "height", "width", "fps", "codec"))
            for name, verdict in verdicts.items():
                writer.writerow((name, *verdict[:5], f"{verdict.fps:.6g}", verdict.codec))
        for table, rows in tables.items():
            kept = clean(rows, {row.path: verdicts[inside(folder, row.path)] for row in rows})
            write_table(out / f"{table}.csv", [row._replace(flow=None) for row in kept], folder)

    def _split_info(self, split: str, told: list[list[Told]]) -> tfds.core.SplitInfo:
        frames, template = self.builder_config.layout.kind == FRAMES, self._template(Path(self.data_dir), split)
        lengths = [sum(one.info.num_frames if frames else 1 for one in shard if one.info) for shard in told]
        files = template.sharded_filepaths(num_shards=len(told))
        size = sum(Path(file).stat().st_size for file in files)
        return tfds.core.SplitInfo(name=split, shard_lengths=lengths, num_bytes=size, filename_template=template)


class Ucf101(Videos, skip_registration=True):
    """UCF101."""

    dataset = "ucf101"


class Hmdb51(Videos, skip_registration=True):
    """HMDB51."""

    dataset = "hmdb51"


class Kinetics400(Videos, skip_registration=True):
    """Kinetics-400."""

    dataset = "kinetics400"


class Kinetics600(Videos, skip_registration=True):
    """Kinetics-600."""

    dataset = "kinetics600"


class SomethingV1(Videos, skip_registration=True):
    """Something-Something, version 1."""

    dataset = "something_v1"


class SomethingV2(Videos, skip_registration=True):
    """Something-Something, version 2."""

    dataset = "something_v2"


class Diving48(Videos, skip_registration=True):
    """Diving48, second labels."""

    dataset = "diving48"


BUILDERS: dict[str, type[Videos]] = {
    builder.dataset or "videos": builder
    for builder in (Ucf101, Hmdb51, Kinetics400, Kinetics600, SomethingV1, SomethingV2, Diving48, Videos)
}
"""Name -> builder; "videos": of a folder of your own."""


def _sources(folder: Path, tables: Mapping[str, Sequence[Row]]) -> dict[str, list[Source]]:
    """Split -> videos, each once: in the split of the first table that has it."""
    found, seen = {}, set()
    for row in (row for rows in tables.values() for row in rows):
        if row.path not in seen:
            seen.add(row.path)
            found.setdefault(row.split, []).append(Source(inside(folder, row.path), str(row.path), row.label))
    return found


def _link(file: Path, folder: Path) -> None:
    """Puts a file into a folder of the same disk, too: until the folder is complete, work may go on without it."""
    try:
        os.link(file, folder / file.name)
    except OSError:  # the file system has no links
        shutil.copyfile(file, folder / file.name)


def _check_room(folder: Path, needed: float) -> None:
    free = shutil.disk_usage(folder).free
    cluster.say(f"about {needed / 1e9:.3g} GB will be written; {free / 1e9:.3g} GB are free")
    if SPARE * needed > free:
        raise DataError(f"{folder}: about {needed / 1e9:.3g} GB are needed, and {free / 1e9:.3g} GB are free")


def _check_some(told: Mapping[str, list[list[Told]]]) -> None:
    bad = [one.verdict.reason for of_split in told.values() for shard in of_split for one in shard if one.info is None]
    for split, of_split in told.items():
        if not any(one.info for shard in of_split for one in shard):
            raise DataError(f"not one video of split {split!r} can be used:{list_faults(bad)}")
