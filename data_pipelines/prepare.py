"""Prepares videos for reading at random: `python -m data_pipelines.prepare ucf101 DIR --out OUT --layout frames`.

`DIR` holds videos and annotations, as published (docs/datasets.md); the name "videos" stands for a folder of your own,
with its tables or none. The shards are written by Apache Beam (`pip install 'hcml_jax[prepare]'`), on all cores of this
machine; Beam's own flags, after `--`, choose another runner: `-- --runner=FlinkRunner --flink_master=...`. Every video
is decoded to its end, in a process that may hang or die; `report.csv` tells what was found of each. The disk needed is
estimated first. Interrupted work goes on where it stopped, and ends with the same bytes.
"""

import argparse
import os
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from csv import DictReader
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from data_pipelines.datasets import DATASETS
from data_pipelines.errors import DataError
from data_pipelines.prepared.layouts import KINDS, Layout
from data_pipelines.table import TABLE
from hcml_jax.config import ConfigError, UserError
from hcml_jax.progress import Progress

POLL = 1.0  # seconds between looks at what is finished


def run_by_beam(flags: Sequence[str]) -> Callable[[Callable[[Any], Any], Sequence[Any]], None]:
    """What calls a function on each shard, by Beam with these flags."""
    import apache_beam
    from apache_beam.options.pipeline_options import PipelineOptions

    def run(function: Callable[[Any], Any], shards: Sequence[Any]) -> None:
        with _progress([shard.file for shard in shards]), apache_beam.Pipeline(options=PipelineOptions(flags)) as made:
            _ = made | apache_beam.Create(shards) | apache_beam.Reshuffle() | apache_beam.Map(function)

    return run


def main(arguments: Sequence[str] | None = None) -> None:
    """Prepare, and print the folder and what was found."""
    own, flags = _split(sys.argv[1:] if arguments is None else arguments)
    given = _parser().parse_args(own)
    try:
        for package, extra in (("apache_beam", "prepare"), ("av", "data"), ("tensorflow_datasets", "data")):
            if find_spec(package) is None:
                raise DataError(f"preparing videos needs {package}: pip install 'hcml_jax[{extra}]'")
        if given.workers < 1 or given.timeout <= 0 or given.shard_mb <= 0:
            raise ConfigError("--workers must be 1 or more, --timeout and --shard-mb above 0")
        if not given.folder.is_dir():
            raise DataError(f"{given.folder}: no such folder")
        layout = Layout(given.layout, given.short_side, given.quality, given.crf, given.keyframe_every)
        local = ["--direct_running_mode=multi_threading", f"--direct_num_workers={given.workers}"]
        options = {"shard_mb": given.shard_mb, "timeout": given.timeout, "tables": tuple(given.table)}
        run = run_by_beam([*local, *flags])
        prepare(given.dataset, given.folder, given.out, layout, run, **options)
    except (UserError, OSError) as error:
        sys.exit(f"{type(error).__name__}: {error}")
    except KeyboardInterrupt:
        sys.exit("interrupted; the same command goes on")


def _split(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The command's own flags, and Beam's after "--"."""
    own = list(arguments)
    return (own[: own.index("--")], own[own.index("--") + 1 :]) if "--" in own else (own, [])


def prepare(dataset: str, folder: Path, out: Path, layout: Layout, run: Callable, **options: Any) -> Path:
    """Prepares a dataset, or the "videos" of a folder, and prints what was found; returns the prepared folder.

    Args:
      dataset: a name of `BUILDERS`.
      folder: annotations and videos.
      out: where the prepared folder is made.
      layout: how videos are stored.
      run: see `run_by_beam`.
      **options: further fields of `PreparedConfig`.

    Raises:
      DataError: annotations or videos are missing, the disk has no room, or `out` was made of other videos.
    """
    import tensorflow_datasets as tfds
    from absl import logging

    from data_pipelines.prepared.builder import BUILDERS, REPORT, PreparedConfig

    logging.set_verbosity(logging.ERROR)  # it warns of a layout that it does not know
    config = PreparedConfig(name=layout.name, layout=layout, run=run, **options)
    # Absolute, for workers on other machines.
    builder = BUILDERS[dataset](config=config, data_dir=out.absolute())
    given = tfds.download.DownloadConfig(manual_dir=folder.absolute(), try_download_gcs=False)
    builder.download_and_prepare(download_config=given)
    out = Path(builder.data_dir)
    with (out / REPORT).open(encoding="utf-8") as file:
        verdicts = [row for row in DictReader(file) if row["verdict"] != "ok"]
    for row in verdicts[:20]:
        print(f"{row['verdict']}: {row['reason']}", file=sys.stderr)
    if builder.missing:
        print(f"{len(builder.missing)} annotated videos are not there", file=sys.stderr)
    for note in builder.notes:
        print(f"note: {note}", file=sys.stderr)
    counts = Counter(row["verdict"] for row in verdicts)
    size = sum(split.num_bytes for split in builder.info.splits.values())
    print(f"{counts['bad']} videos are bad and left out, {counts['repaired']} repaired: {out / REPORT}")
    tables = sorted(path.name for path in out.glob("*.csv") if path.name != REPORT)
    table = "" if TABLE in tables else f" --config.data.table={tables[0]}"
    print(f"{size / 1e9:.3g} GB in {out}; train with --config.data.root={out}{table}")
    return out


@contextmanager
def _progress(files: Sequence[str]) -> Iterator[None]:
    """Shows how many of the files are there."""

    def count() -> int:
        return sum(os.path.exists(file) for file in files)

    done, ended = count(), threading.Event()
    progress = Progress("Preparing", len(files), "shards", done=done)

    def watch() -> None:
        seen = done
        while not ended.wait(POLL):
            now = count()
            progress.add(now - seen)
            seen = now
        progress.add(count() - seen)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        progress.close()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m data_pipelines.prepare", description=__doc__)
    parser.add_argument("dataset", choices=[*DATASETS, "videos"])
    parser.add_argument("folder", type=Path, help="annotations and videos")
    parser.add_argument("--out", type=Path, required=True, help="where the prepared folder is made")
    parser.add_argument("--layout", choices=KINDS, default="frames", help="see docs/datasets.md")
    parser.add_argument("--short-side", type=int, default=256, help="of stored frames, at most; 0: as they are")
    parser.add_argument("--quality", type=int, default=90, help="of JPEG")
    parser.add_argument("--crf", type=int, default=20, help="of H.264: 0 is lossless, 51 worst")
    parser.add_argument("--keyframe-every", type=int, default=16, help="frames, of layout video")
    parser.add_argument("--table", nargs="*", default=[], help="of a folder of your own, its tables")
    parser.add_argument("--shard-mb", type=float, default=256.0, help="about the size of a shard")
    parser.add_argument("--timeout", type=float, default=600.0, help="seconds that a video may take")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="of the local runner")
    return parser


if __name__ == "__main__":
    main()
