"""What FIMA's networks see of a batch: views, their frame differences, and the parts of them."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from hcml_jax import augment
from hcml_jax.batch import Batch
from hcml_jax.methods.fima_config import DIFFERENCE, FRAME, RGB, FIMAConfig
from hcml_jax.ops import frame_difference
from hcml_jax.rng import stream


class View(NamedTuple):
    """A clip of each video of a batch, as networks see it: normalised, augmented in training.

    Attributes:
      clip: `[B, T, H, W, 3]`, frames.
      difference: likewise, their differences.
      parts: T' arrays `[B, T'', H, W, 3]`: differences of all frames of each part of the clip; none without L_Fra.
      box: `[B, 4]`, (top, left, height, width) of what is shown, in pixels of the video.
      flip: bool `[B]`, whether it is mirrored.
    """

    clip: jax.Array
    difference: jax.Array
    parts: Sequence[jax.Array]
    box: jax.Array
    flip: jax.Array


def view_of(config: FIMAConfig, batch: Batch, number: int, key: jax.Array, train: bool) -> View:
    """The view of clips number `number` of a batch; in training flipped and with other colours, at random."""
    frames, consecutive = augment.to_float(batch.clip[:, number]), batch.consecutive[:, number]
    flip = jnp.zeros(len(frames), jnp.bool_)
    if train and config.flip:
        flip = augment.draw_flip(stream(key, "flip"), len(frames))
        frames = augment.flip(frames, flip)
    clip = frames[:, :: config.stride]
    # A frame follows the previous one shown if every frame between does.
    steps = consecutive[:, : frames.shape[1] - config.stride].reshape(len(frames), -1, config.stride)
    difference = frame_difference(clip, first=config.first_difference, consecutive=steps.all(-1))
    return View(
        clip=_coloured(config, clip, stream(key, RGB), train),
        difference=_coloured(config, difference, stream(key, DIFFERENCE), train),
        parts=_parts(config, frames, consecutive, key, train) if FRAME in config.compared else (),
        box=batch.box[:, number],
        flip=flip,
    )


def _parts(
    config: FIMAConfig, frames: jax.Array, consecutive: jax.Array, key: jax.Array, train: bool
) -> list[jax.Array]:
    """The differences of each part of clips, each part with draws of its own."""
    parts, number = [], config.times(frames.shape[1])
    for part in range(number):
        own = slice(part * frames.shape[1] // number, (part + 1) * frames.shape[1] // number)
        follows = consecutive[:, own.start : own.stop - 1]
        shown = frames[:, own]
        if train and config.part_area:
            shown = augment.crop(shown, augment.draw_crop(stream(key, f"crop{part}"), len(shown), config.part_area))
        difference = frame_difference(shown, first=config.first_difference, consecutive=follows)
        parts.append(_coloured(config, difference, stream(key, f"part{part}"), train))
    return parts


def _coloured(config: FIMAConfig, clip: jax.Array, key: jax.Array, train: bool) -> jax.Array:
    """Normalised clips, of frames or differences; their colours change in training."""
    if train:
        drawn = augment.draw_photometric(key, len(clip), config.photometric)
        clip = augment.change_photometry(clip, drawn, config.photometric)
    return augment.normalise(clip, config.backbone.mean, config.backbone.std)
