"""Predicted frames beside the true ones, with the errors of prediction and of copying."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from hcml_jax.ops.check import check_equal, checked

GAIN = 4  # by which errors are shown


def predicted_rows(frames, predicted, follows) -> dict[str, np.ndarray]:
    """Rows of images for `draw_strips`: each time is that of the predicted frame.

    Args:
      frames: uint8 `[N, T + 1, H, W, 3]`, of which all but the first are to be predicted.
      predicted: float `[N, T, H, W, 3]` in `[0, 1]`, or slightly outside.
      follows: bool `[N, T]`, whether the next frame follows in the video; images are black if it does not.

    Returns:
      name -> uint8 `[N, T, H, W, 3]`; errors are multiplied by four.

    Raises:
      ValueError: the shapes do not fit.
    """
    frames = np.asarray(checked("frames", frames, "N T H W 3", jnp.uint8))
    predicted = np.asarray(checked("predicted", predicted, "N T H W 3"), np.float32)
    check_equal("predicted: one frame less than frames", predicted.shape, frames[:, 1:].shape)
    before, true = frames[:, :-1] / np.float32(255), frames[:, 1:] / np.float32(255)
    rows = {
        "frame before": before,
        "true": true,
        "predicted": predicted,
        "error": GAIN * abs(predicted - true),
        "error of copying": GAIN * abs(before - true),
    }
    shown = np.asarray(follows)[:, :, None, None, None]
    return {name: np.round(255 * np.clip(images * shown, 0, 1)).astype(np.uint8) for name, images in rows.items()}


def moving_prediction(rows: dict[str, np.ndarray], titles: Sequence[str]) -> list[list[tuple]]:
    """Rows for `save_moving`, from those of `predicted_rows`: one per clip, with its title over the first picture."""
    return [
        [(images[number], name if column else title, "black") for column, (name, images) in enumerate(rows.items())]
        for number, title in enumerate(titles)
    ]
