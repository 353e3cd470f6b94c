"""How well a network makes the frame that follows each frame of a clip (CGM-Net Table 1)."""

from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp

from hcml_jax import augment
from hcml_jax.batch import Batch
from hcml_jax.evaluation.flow import per_video
from hcml_jax.methods.base import Method, Variables
from hcml_jax.ops import psnr, ssim


def prediction_errors(method: Method, variables: Variables, batches: Iterable[Batch]) -> dict[str, Any]:
    """Frames that a method makes of those before them, as `PerVideo`.

    Args:
      method: has `next_frames`.
      variables: its own.
      batches: clips with the frame behind them.

    Returns:
      "seen", of the clip's frames from the second on, and "unseen", of the frame behind it, each: "l1" (of values in
      [-1, 1]), "psnr" in dB and "ssim", each: "learnt" and "copying" (the frame before) -> measure. Values beyond
      [0, 1] are cut off. Where a video begins again nothing is measured.
    """

    @jax.jit
    def measure(variables, clips, future, consecutive):
        frames = augment.to_float(jnp.concatenate([clips, future], axis=1))
        made = {"learnt": method.next_frames(variables, clips), "copying": frames[:, :-1]}
        found = {"seen": {}, "unseen": {}}
        following = frames[:, 1:]
        for name, given in made.items():
            images = jnp.clip(given, 0.0, 1.0)
            kinds = {"l1": 2 * jnp.abs(images - following).mean((2, 3, 4)), "psnr": psnr(images, following)}
            for kind, of_all in (kinds | {"ssim": ssim(images, following)}).items():
                values = jnp.where(consecutive, of_all, jnp.nan)
                found["seen"].setdefault(kind, {})[name] = jnp.nanmean(values[:, :-1], axis=1)
                found["unseen"].setdefault(kind, {})[name] = values[:, -1]
        return found

    def of_batch(batch: Batch) -> dict[str, Any]:
        return measure(variables, batch.clip[:, 0], batch.future[:, 0], batch.consecutive[:, 0])

    return per_video(of_batch, batches)
