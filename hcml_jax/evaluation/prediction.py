"""Errors of frames predicted from the previous ones, by a network and by flow (CGM-Net Table 1)."""

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from hcml_jax import augment
from hcml_jax.batch import Batch
from hcml_jax.evaluation.flow import per_video
from hcml_jax.ops import backward_warp, psnr, ssim

FrameMaker = Callable[[Any], Any]  # uint8 clips [B, T, H, W, 3] -> the frame after each, [B, T, H, W, 3] in [0, 1]


def prediction_errors(makers: Mapping[str, FrameMaker], batches: Iterable[Batch]) -> dict[str, Any]:
    """Errors of frames predicted from the previous ones, as `PerVideo`.

    Args:
      makers: name -> function that predicts the frames.
      batches: clips, with or without the frame after them.

    Returns:
      "seen", of the clip's frames from the second on, and "unseen", of the frame after it if there is one, each:
      "l1" (of values in [-1, 1]), "psnr" in dB and "ssim", each: name -> measure. Values are clipped to [0, 1].
      Frames at which a looped video restarts are left out.
    """

    def of_batch(batch: Batch) -> dict[str, Any]:
        clips, found = batch.clip[:, 0], {}
        following = clips[:, 1:] if batch.future is None else jnp.concatenate([clips[:, 1:], batch.future[:, 0]], 1)
        for name, make in makers.items():
            made = make(clips)[:, : following.shape[1]]
            for part, kinds in _errors(made, following, batch.consecutive[:, 0], clips.shape[1] - 1).items():
                for kind, values in kinds.items():
                    found.setdefault(part, {}).setdefault(kind, {})[name] = values
        return found

    return per_video(of_batch, batches)


def copies(clips) -> jax.Array:
    """Frames as they are: nothing moves. A `FrameMaker`."""
    return augment.to_float(clips)


def by_flow(flow_of: Callable[[Any], Any]) -> FrameMaker:
    """Warp each frame to the next by the flow between them; the last, whose next is unknown, by the previous flow.

    Pixels are sampled from their earlier position (backward warp): the flow is that of the reversed clip.

    Args:
      flow_of: uint8 clips `[B, T, H, W, 3]` -> flow from each frame to the next `[B, T - 1, H, W, 2]`, in pixels.
    """

    def make(clips) -> jax.Array:
        back = jnp.flip(jnp.asarray(flow_of(clips[:, ::-1])), axis=1)  # from each frame to the one before
        return _moved(clips, back)

    return make


@jax.jit
def _moved(clips: jax.Array, back: jax.Array) -> jax.Array:
    frames, _ = backward_warp(augment.to_float(clips), jnp.concatenate([back, back[:, -1:]], axis=1))
    return frames


@functools.partial(jax.jit, static_argnums=3)
def _errors(
    made: jax.Array, following: jax.Array, consecutive: jax.Array, seen: int
) -> dict[str, dict[str, jax.Array]]:
    """Errors of the first `seen` frames, and of the one after them, if there is one."""
    images, following = jnp.clip(made, 0.0, 1.0), augment.to_float(following)
    kinds = {"l1": 2 * jnp.abs(images - following).mean((2, 3, 4)), "psnr": psnr(images, following)}
    kinds |= {"ssim": ssim(images, following)}
    kinds = {kind: jnp.where(consecutive, values, jnp.nan) for kind, values in kinds.items()}
    found = {"seen": {kind: jnp.nanmean(values[:, :seen], axis=1) for kind, values in kinds.items()}}
    if following.shape[1] > seen:
        found["unseen"] = {kind: values[:, seen] for kind, values in kinds.items()}
    return found
