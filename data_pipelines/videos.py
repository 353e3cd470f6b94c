"""Opens a folder of videos: reads its table, probes every file, and selects the usable rows."""

import contextlib
import functools
import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from data_pipelines import video
from data_pipelines.clips import ClipReader, find_fault
from data_pipelines.config import DataConfig
from data_pipelines.data import Data
from data_pipelines.errors import DataError
from data_pipelines.loader import num_workers
from data_pipelines.prepared.reader import Prepared, is_prepared
from data_pipelines.scan import scan_videos
from data_pipelines.skipped import SkipLog
from data_pipelines.table import Row, class_names, hold_out, list_faults, read_table
from hcml_jax import cluster


@contextlib.contextmanager
def _without_collection() -> Iterator[None]:
    """Stops Python's collector, which would look at millions of new objects, all of which stay, again and again."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@_without_collection()
def open_videos(
    config: DataConfig,
    workdir: str | Path | None = None,
    future: int = 0,
    process: int = 0,
    classes: Sequence[str] = (),
    network: Callable | None = None,
) -> Data:
    """Opens the videos that `config` names, in files or prepared; writes Motion Sprites first if it says so.

    Every video file is probed once. With `workdir`, the results are cached in `videos.json` there, and clips left out
    are listed in `skipped.jsonl`.

    Args:
      config: which clips, and how to sample them.
      workdir: folder of the run, made if need be; None: nothing is written.
      future: most frames behind a clip that are ever read; a video must be long enough for them too.
      process: number of this process of the run; one above 0 lists clips left out in a file of its own,
        `skipped.<process>.jsonl`.
      classes: of a network that is evaluated: see `class_names`.
      network: the `hcml_jax.flow_networks.FlowNetwork` that `config.flow` names; None: it names none, or no flow is
        read.

    Raises:
      DataError: the folder, the table (`read_table`) or videos are unusable, or can have no flow where a folder of
        computed flow is named; lists the videos.
    """
    if config.sprites is not None:
        from data_pipelines.write_sprites import write_sprites  # needs jax

        write_sprites(config.sprites, config.root)
    folders = [config.root, *(folder for folder, _ in config.mixture)]
    stores = [Prepared(folder) if is_prepared(folder) else None for folder in folders]
    rows, ends = _rows(config, stores)
    memory = skip_file = None
    if workdir is not None:
        folder = Path(workdir)
        folder.mkdir(parents=True, exist_ok=True)
        memory = folder / "videos.json"
        skip_file = folder / (f"skipped.{process}.jsonl" if process else "skipped.jsonl")
    held = {row.path: store for store, part in zip(stores, _parts(rows, ends), strict=True) if store for row in part}
    infos = scan_videos([row.path for row in rows if row.path not in held], num_workers(config), memory)
    infos |= {path: store.info(path) for path, store in held.items()}
    reader = ClipReader(config, infos, functools.partial(_read_clips, held) if held else None)
    skipped = SkipLog(skip_file)
    faults = [find_fault(row, infos[row.path], config, future) or reader.flow_left_out(row) for row in rows]
    usable = _usable(config, rows, faults, skipped)
    if skipped.entries:
        cluster.say(f"{len(skipped.entries)} of {len(rows)} clips cannot be used and are left out")
    names = class_names(rows, config.sprites.classes if config.sprites else (), classes)
    return Data(config, rows, names, usable, reader, skipped, future, network, ends[:-1])


def _rows(config: DataConfig, stores: Sequence[Prepared | None]) -> tuple[list[Row], list[int]]:
    """The rows of all folders, numbered through, and the end of each folder's."""
    rows = read_table(config.root, config.table, stores[0] and stores[0].exists)
    if config.validation_share:
        rows = hold_out(rows, config.validation_share)
    ends = [len(rows)]
    for (folder, _), store in zip(config.mixture, stores[1:], strict=True):
        more = [row for row in read_table(folder, "", store and store.exists) if row.split == "train"]
        if not more:
            raise DataError(f"mixture: {folder} has no clips of split 'train'")
        rows += [row._replace(index=index, label="", family="") for index, row in enumerate(more, len(rows))]
        ends.append(len(rows))
    return rows, ends


def _parts(rows: Sequence[Row], ends: Sequence[int]) -> list[Sequence[Row]]:
    return [rows[start:end] for start, end in zip([0, *ends], ends, strict=False)]


def _read_clips(held: Mapping[Path, Prepared], path: Path, *wanted) -> list[np.ndarray]:
    return held.get(path, video).read_clips(path, *wanted)


def _usable(config: DataConfig, rows: Sequence[Row], faults: Sequence[str | None], skipped: SkipLog) -> list[Row]:
    """The rows a clip can be taken of; raises DataError for the others, or records them."""
    bad = [(row, fault) for row, fault in zip(rows, faults, strict=True) if fault]
    usable = [row for row, fault in zip(rows, faults, strict=True) if not fault]
    if bad and not (config.skip_bad and usable):
        raise DataError(
            f"{len(bad)} of {len(faults)} clips cannot be used (skip_bad=True leaves them out, "
            f"short_clips='loop' begins short ones again):{list_faults([fault for _, fault in bad])}"
        )
    for row, fault in bad:
        skipped.add(row, fault)
    return usable
