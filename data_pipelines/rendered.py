"""Motion Sprites rendered on the device as they are read: no files, nothing to decode, and as many clips as there are
steps.

Neither tensorflow nor PyAV is needed. What a step reads is chosen on the host, as for videos (`Data`); one jitted
program then renders the batch, crops and resizes it.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from data_pipelines.config import FAMILIES, DataConfig, SpritesConfig
from data_pipelines.data import Data
from data_pipelines.errors import DataError
from data_pipelines.flow import dis_flow
from data_pipelines.sampling import draw_views
from data_pipelines.skipped import SkipLog
from data_pipelines.sprites import cue_of, plan, render
from data_pipelines.table import Row, class_names, hold_out
from hcml_jax.batch import Batch, Reads, blank_batch


class Recipe(NamedTuple):
    """What to render of B clips, in place of the frames of a batch.

    Attributes:
      number: int `[B]`, number of the clip in the set.
      fresh: int `[B]`, 0: the clip of that number; other values: other clips of its class.
      label: int `[B]`, its class, known only to the renderer.
      cue: float `[B]`, probability that it has its class's colours.
      frames: int `[B, V, T + F]`, indices of the frames that are read.
      box: float `[B, V, 4]`, their crop (top, left, height, width).
    """

    number: Any
    fresh: Any
    label: Any
    cue: Any
    frames: Any
    box: Any


def open_rendered(
    config: DataConfig, future: int = 0, classes: Sequence[str] = (), network: Callable | None = None
) -> "RenderedData":
    """Opens the sprites of `config.sprites` without writing any; options as for `open_videos`."""
    sprites, span = config.sprites, config.span(future)
    if span > sprites.frames and config.short_clips == "error":
        raise DataError(f"clips with the {future} frames behind them span {span}: sprites.frames is {sprites.frames}")
    rows = [
        Row(clip.number, Path(clip.name), name := sprites.classes[clip.label], clip.split, family=FAMILIES[name])
        for clip in plan(sprites)
    ]
    if config.validation_share:
        rows = hold_out(rows, config.validation_share)
    names = class_names(rows, sprites.classes, classes)
    return RenderedData(config, rows, names, rows, RecipeReader(config), SkipLog(None), future, network)


class RenderedData(Data):
    """Clips of `config.sprites`.

    In every epoch a training clip is a new one of its class, except for those that keep their label if only some do:
    the number of labelled clips is fixed. Validation and test clips are those that would be written.
    """

    @property
    def census(self) -> dict[str, Any]:
        """See `hcml_jax.batch.Data`."""
        return super().census | {"sprites": dataclasses.asdict(self.config.sprites)}

    def warm_up(self) -> None:
        """See `hcml_jax.batch.Data`: there is nothing to prepare."""

    def eval_batches(self, *args: Any, **options: Any) -> Iterator[Batch]:
        """See `hcml_jax.batch.Data`; batches are on the host, where evaluations also read clips."""
        return map(jax.device_get, super().eval_batches(*args, **options))

    def _train_example(self, rows: Sequence[Row], key: tuple, reads: Reads, number: int) -> Batch:
        example = super()._train_example(rows, key, reads, number)
        if self.config.labels_per_class and int(example.index) in self.labelled:
            return example
        seed, stage = key
        epoch = number // len(rows)
        fresh = np.random.SeedSequence([seed, epoch, *stage.encode()]).generate_state(1)[0] | 1
        return example._replace(clip=example.clip._replace(fresh=fresh))

    def _batches(self, read, numbers: tuple[int, int], size: int, reads: Reads) -> Iterator[Batch]:
        sprites, frames = self.config.sprites, self.config.frames
        side = reads.crop or self.config.crop
        for first in range(*numbers, size):
            examples = [read(number) for number in range(first, first + size)]
            batch = jax.tree.map(lambda *arrays: np.stack(arrays), *examples)
            true_flow = reads.flow and self.flow_is_true
            shown, flow = _rendered(batch.clip, sprites, side, true_flow)
            if reads.flow and not true_flow:
                flow = np.stack([[dis_flow(clip) for clip in clips] for clips in np.asarray(shown)])
            yield batch._replace(
                clip=shown[:, :, :frames], future=shown[:, :, frames:] if reads.future else None, flow=flow
            )


class RecipeReader:
    """A `Reader` of recipes; see `ClipReader`."""

    def __init__(self, config: DataConfig):
        """`config` has `sprites`."""
        self._config = config

    def example(self, row: Row, label: int, reads: Reads, generator: np.random.Generator | None = None) -> Batch:
        """See `Reader`."""
        config, sprites = self._config, self._config.sprites
        views = draw_views(config, reads, (0, sprites.frames), (sprites.size, sprites.size), generator)
        box = np.array([view.box for view in views], np.float32)
        frames = np.stack([view.indices for view in views]).astype(np.int32)
        of_class, cue = np.int32(sprites.classes.index(row.label)), np.float32(cue_of(sprites, row.split))
        blank = self.blank(reads, label, row.index)
        return blank._replace(
            clip=Recipe(np.int32(row.index), np.uint32(0), of_class, cue, frames, box),
            box=box,
            start=frames[:, 0],
            consecutive=np.stack([view.consecutive for view in views]),
            valid=np.bool_(True),
            future=None,
            flow=None,
        )

    def whole_frame(self, row: Row, number: int) -> tuple[np.ndarray | None, float]:
        """See `Reader`: nothing is kept of what is rendered."""
        return None, 0.0

    def flow_fault(self, row: Row, reads: Reads) -> str | None:
        """See `Reader`."""
        if self._config.flow == "dis":
            return None
        whole = self._config.stride == 1 and self._config.short_clips == "error"
        return None if whole else "the flow of rendered sprites needs stride 1 and short_clips 'error'"

    def blank(self, reads: Reads, label: int = -1, index: int = 0) -> Batch:
        """See `Reader`."""
        config = self._config
        batch = blank_batch(1, (config.frames, config.crop, config.crop, 3), reads)
        example = Batch(*(None if array is None else array[0] for array in batch))
        return example._replace(label=np.int32(label), index=np.int32(index))


@functools.partial(jax.jit, static_argnums=(1, 2, 3))
def _rendered(recipe: Recipe, sprites: SpritesConfig, side: int, with_flow: bool) -> tuple[jax.Array, jax.Array | None]:
    """Frames uint8 `[B, V, T + F, side, side, 3]`; flow float32 `[B, V, T + F - 1, side, side, 2]` or None."""
    return jax.vmap(functools.partial(_render_one, sprites=sprites, side=side, with_flow=with_flow))(recipe)


def _render_one(recipe: Recipe, sprites: SpritesConfig, side: int, with_flow: bool):
    key = jax.random.fold_in(jax.random.key(sprites.seed), recipe.number)
    key = jax.lax.cond(recipe.fresh > 0, lambda: jax.random.fold_in(key, recipe.fresh), lambda: key)
    clip, flow, _ = render(key, recipe.label, sprites, recipe.cue)
    cut = functools.partial(_cut, side=side)
    shown = jax.vmap(cut, (None, 0, 0))(clip.astype(jnp.float32), recipe.frames, recipe.box)
    shown = jnp.clip(jnp.round(shown), 0, 255).astype(jnp.uint8)
    if not with_flow:
        return shown, None
    scale = side / recipe.box[:, 3:1:-1]  # (across, down)
    return shown, jax.vmap(cut, (None, 0, 0))(flow, recipe.frames[:, :-1], recipe.box) * scale[:, None, None, None]


def _cut(images: jax.Array, frames: jax.Array, box: jax.Array, side: int) -> jax.Array:
    """The box (top, left, height, width) of some frames `[T, H, W, C]`, resized to `side`."""
    images = images[frames]
    scale = side / box[2:]
    shape = (len(frames), side, side, images.shape[-1])
    return jax.image.scale_and_translate(images, shape, (1, 2), scale, -box[:2] * scale, "linear")
