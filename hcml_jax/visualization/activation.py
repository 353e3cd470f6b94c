"""Maps of activation laid over the frames that they belong to."""

import jax.numpy as jnp
import matplotlib
import numpy as np
from PIL import Image

from hcml_jax.ops.check import check_equal, checked


def lay_over(clips, maps) -> np.ndarray:
    """Frames under maps of activation, red where they are strongest.

    Args:
      clips: uint8 `[N, T, H, W, 3]`.
      maps: `[N, T', H', W']`, 0 or more, each scaled by its greatest value in the clip.

    Returns:
      uint8 `[N, T, H, W, 3]`.

    Raises:
      ValueError: the shapes do not fit each other.
    """
    clips = np.asarray(checked("clips", clips, "N T H W 3", jnp.uint8))
    maps = np.asarray(checked("maps", maps, "N T H W"), np.float32)
    check_equal("maps: clips", len(maps), len(clips))
    strength = maps / np.maximum(maps.max((1, 2, 3), keepdims=True), 1e-12)
    times = np.arange(clips.shape[1]) * maps.shape[1] // clips.shape[1]
    pairs = zip(clips, strength[:, times], strict=True)
    return np.stack([[_laid_over(*pair) for pair in zip(frames, own, strict=True)] for frames, own in pairs])


def _laid_over(frame: np.ndarray, strength: np.ndarray) -> np.ndarray:
    image = Image.fromarray(strength).resize(frame.shape[1::-1], Image.Resampling.BILINEAR)
    colors = matplotlib.colormaps["jet"](np.asarray(image))[..., :3]
    return np.round(0.55 * frame + 0.45 * 255 * colors).astype(np.uint8)
