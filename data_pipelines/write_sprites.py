"""Writes Motion Sprites: H.264 files, an annotation table and ground-truth flow in one folder.

The folder then holds `train/NAME.mp4`, likewise `test` and `val`, beside each its flow `NAME.npz`, `table.csv` and, as
the mark of a complete folder, `sprites.json` with the config. Frames are `yuv420p`, which every reader knows; the
textures are made for it.
"""

import csv
import dataclasses
import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from data_pipelines.config import FAMILIES, SpritesConfig
from data_pipelines.errors import DataError
from data_pipelines.sprites import SpriteClip, cue_of, plan, render
from data_pipelines.table import TABLE
from data_pipelines.write_video import encode
from hcml_jax.config import ConfigError
from hcml_jax.files import new_folder
from hcml_jax.progress import Progress

VERSION = 2  # of the renderer: raise it when the same config gives other clips
_MARK = "sprites.json"
_BATCH = 64
_FRAME_RATE = 8  # a second


def write_sprites(config: SpritesConfig, folder: str | Path) -> Path:
    """Renders, encodes and writes the whole set; returns the folder.

    A complete folder of the same config is used as it is.

    Args:
      config: what to render.
      folder: target folder; missing, empty, or with the same set.

    Raises:
      DataError: `folder` holds something else.
    """
    folder = Path(folder)
    if _is_complete(folder, config):
        return folder
    try:
        with new_folder(folder) as partial:
            _write_all(config, partial)
    except (OSError, ConfigError):
        if not _is_complete(folder, config):  # else another process was faster
            raise
    return folder


def _description(config: SpritesConfig) -> dict:
    """What `sprites.json` holds, as it reads back from JSON."""
    return json.loads(json.dumps({"version": VERSION, **dataclasses.asdict(config)}))


def _is_complete(folder: Path, config: SpritesConfig) -> bool:
    """Whether `folder` holds this set; False if nothing. Raises DataError for another set."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    try:
        found = json.loads((folder / _MARK).read_text())
    except (OSError, ValueError):
        raise DataError(
            f"{folder} holds something other than Motion Sprites (no readable {_MARK}); "
            "name a folder that does not exist yet"
        ) from None
    wanted = _description(config)
    differing = [key for key in wanted if found.get(key) != wanted[key]]
    if differing:
        changes = ", ".join(f"{key} {found.get(key)!r} not {wanted[key]!r}" for key in differing)
        raise DataError(
            f"{folder} holds Motion Sprites of another config: {changes}; name another folder, or delete this one"
        )
    return True


def _write_all(config: SpritesConfig, folder: Path) -> None:
    clips = plan(config)
    for split in {clip.split for clip in clips}:
        (folder / split).mkdir()
    with Progress("Motion Sprites", len(clips), "clips") as progress, ThreadPoolExecutor(os.cpu_count()) as pool:
        pending = []
        for batch, frames, flows in _render_batches(config, clips):
            _finish(pending, progress)
            jobs = zip(batch, frames, flows, strict=True)
            pending = [pool.submit(_write_clip, folder, config, *job) for job in jobs]
        _finish(pending, progress)
    _write_table(config, folder / TABLE, clips)
    (folder / _MARK).write_text(json.dumps(_description(config), indent=2) + "\n")


def _finish(pending: list, progress: Progress) -> None:
    """Waits for the encoders, so that one batch at most is held; raises what they raised."""
    wait(pending)
    for job in pending:
        job.result()
    progress.add(len(pending))


def _render_batches(
    config: SpritesConfig, clips: list[SpriteClip]
) -> Iterator[tuple[list[SpriteClip], np.ndarray, np.ndarray]]:
    """Yields clips with their frames `[B, T, H, W, 3]` and flows `[B, T-1, H, W, 2]`."""

    @jax.jit
    def render_batch(numbers, labels, cues):
        keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(jax.random.key(config.seed), numbers)
        frames, flows, _ = jax.vmap(render, in_axes=(0, 0, None, 0))(keys, labels, config, cues)
        return frames, flows

    for start in range(0, len(clips), _BATCH):
        batch = clips[start : start + _BATCH]
        padded = (batch * _BATCH)[:_BATCH]  # one shape, one compilation
        numbers = jnp.array([clip.number for clip in padded])
        labels = jnp.array([clip.label for clip in padded])
        cues = jnp.array([cue_of(config, clip.split) for clip in padded])
        frames, flows = jax.device_get(render_batch(numbers, labels, cues))
        yield batch, frames[: len(batch)], flows[: len(batch)]


def _write_clip(folder: Path, config: SpritesConfig, clip: SpriteClip, frames: np.ndarray, flow: np.ndarray) -> None:
    path = folder / clip.name
    encode(frames, path.with_suffix(".mp4"), crf=config.crf, rate=_FRAME_RATE)
    np.savez_compressed(path.with_suffix(".npz"), flow=flow.astype(np.float16))


def _write_table(config: SpritesConfig, path: Path, clips: list[SpriteClip]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "split", "family", "flow"])
        for clip in clips:
            label = config.classes[clip.label]
            writer.writerow([f"{clip.name}.mp4", label, clip.split, FAMILIES[label], f"{clip.name}.npz"])
