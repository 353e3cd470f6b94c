"""Shards of a prepared folder: which videos lie in which, and writing one of them, whole or not at all."""

import dataclasses
import io
import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from data_pipelines.errors import DataError
from data_pipelines.isolated import Failed, Isolated
from data_pipelines.prepared.layouts import FRAMES, Encoded, Layout, encode
from data_pipelines.table import list_faults
from data_pipelines.verdict import BAD, Verdict
from data_pipelines.video_info import VideoInfo
from hcml_jax.files import new_file, replace_text


@dataclasses.dataclass(frozen=True)
class Source:
    """A video to be stored.

    Attributes:
      name: its path in the folder that it is read from.
      path: the whole path.
      label: the class; "": none.
    """

    name: str
    path: str
    label: str


@dataclasses.dataclass(frozen=True)
class Shard:
    """A shard to be written.

    Attributes:
      file: where.
      videos: in the order of their records.
      layout: how they are stored.
      timeout: seconds that a video may take.
    """

    file: str
    videos: tuple[Source, ...]
    layout: Layout
    timeout: float


def divide(videos: Sequence[Source], shards: int) -> list[tuple[Source, ...]]:
    """Videos in so many parts of about the same number, in order."""
    ends = [round(len(videos) * (shard + 1) / shards) for shard in range(shards)]
    return [tuple(videos[start:end]) for start, end in zip([0, *ends], ends, strict=False)]


def number_of_shards(videos: int, bytes_each: float, shard_bytes: float) -> int:
    """How many shards have about so many bytes, a video or more each."""
    return min(max(math.ceil(videos * bytes_each / shard_bytes), 1), videos)


class Told(NamedTuple):
    """What is known of a video that was written.

    Attributes:
      name: of the `Source`.
      verdict: on it.
      info: of what is stored; None: nothing, it is bad.
    """

    name: str
    verdict: Verdict
    info: VideoInfo | None


def features(kind: str) -> Any:
    """The features of a record of a layout, as tensorflow-datasets has them."""
    import tensorflow_datasets as tfds

    about = {"video": tfds.features.Text(), "label": tfds.features.Text()}
    if kind == FRAMES:
        image = tfds.features.Image(shape=(None, None, 3), encoding_format="jpeg")
        return tfds.features.FeaturesDict({"image": image, "frame": tfds.features.Scalar(np.int64), **about})
    return tfds.features.FeaturesDict({"file": tfds.features.Tensor(shape=(), dtype=np.object_), **about})


def mean_bytes(videos: Sequence[Source], layout: Layout, timeout: float) -> float:
    """The mean size of some videos once they are stored.

    Raises:
      DataError: not one can be used.
    """
    with Isolated(_encode, min(os.cpu_count() or 1, len(videos)), timeout) as isolated:
        found = list(isolated.map([(video.path, layout) for video in videos]))
    encoded = [_judged(video, result) for video, result in zip(videos, found, strict=True)]
    sizes = [sum(map(len, one.records)) for one in encoded if one.records]
    if not sizes:
        faults = [one.verdict.reason for one in encoded]
        raise DataError(f"not one of the first {len(videos)} videos that were tried can be used:{list_faults(faults)}")
    return sum(sizes) / len(sizes)


def write_shard(shard: Shard) -> None:
    """Writes a shard, unless it is there, and what it holds beside it.

    A video whose decoder hangs or dies is left out, as bad.
    """
    from tensorflow_datasets.core.utils.lazy_imports_utils import array_record_module

    told = _told_file(shard)
    if told.exists() and Path(shard.file).exists():
        return
    kinds, found = features(shard.layout.kind), []
    with new_file(Path(shard.file)) as partial:
        writer = array_record_module.ArrayRecordWriter(str(partial), "group_size:1")
        with Isolated(_encode, workers=1, timeout=shard.timeout) as isolated:
            results = isolated.map([(video.path, shard.layout) for video in shard.videos])
            for video, result in zip(shard.videos, results, strict=True):
                encoded = _judged(video, result)
                for number, record in enumerate(encoded.records):
                    example = kinds.serialize_example(_example(shard.layout, video, number, record))
                    writer.write(_in_order(example))
                found.append(Told(video.name, encoded.verdict, encoded.info))
        writer.close()
    replace_text(told, json.dumps(found))


def read_told(shard: Shard) -> list[Told]:
    """What a shard that was written holds."""
    found = json.loads(_told_file(shard).read_text())
    return [Told(name, Verdict(*verdict), info and VideoInfo(*info)) for name, verdict, info in found]


def _in_order(example: bytes) -> bytes:
    """The same record with its features in order, which otherwise differs from process to process."""
    from tensorflow_datasets.proto import tf_example_pb2

    return tf_example_pb2.Example.FromString(example).SerializeToString(deterministic=True)


def _told_file(shard: Shard) -> Path:
    return Path(f"{shard.file}.videos.json")


def _encode(given: tuple[str, Layout]) -> Encoded:
    path, layout = given
    return encode(Path(path), layout)


def _judged(video: Source, result: Encoded | Failed) -> Encoded:
    return Encoded(Verdict(BAD, f"{video.path}: {result.reason}")) if isinstance(result, Failed) else result


def _example(layout: Layout, video: Source, number: int, record: bytes) -> dict[str, Any]:
    about = {"video": video.name, "label": video.label}
    if layout.kind == FRAMES:
        return {"image": io.BytesIO(record), "frame": number, **about}
    return {"file": record, **about}
