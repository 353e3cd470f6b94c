"""Moving pictures: clips side by side, as an animation that browsers show."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from hcml_jax.files import new_file

GAP, HEAD = 4, 14  # pixels
MILLISECONDS = 120  # a frame
SIDE = 96  # least, of a clip


def save_moving(rows: Sequence[Sequence[tuple]], path: Path) -> Path:
    """Writes rows of clips as one animated WebP, under its name only once it is complete.

    Args:
      rows: lists of (clip uint8 `[T, H, W, 3]`, title, colour of the title); all clips have the same shape.
      path: where to.

    Raises:
      OSError: the file cannot be written.
    """
    length = len(rows[0][0][0])
    frames = [_frame(rows, time) for time in range(length)]
    path.parent.mkdir(parents=True, exist_ok=True)
    with new_file(path) as partial:
        options = {"save_all": True, "append_images": frames[1:], "duration": MILLISECONDS, "loop": 0}
        frames[0].save(partial, format="WEBP", quality=80, **options)
    return path


def _frame(rows, time: int) -> Image.Image:
    height, width = rows[0][0][0].shape[1:3]
    scale = max(1, -(-SIDE // min(height, width)))
    height, width = scale * height, scale * width
    size = (max(map(len, rows)) * (width + GAP), len(rows) * (height + HEAD + GAP))
    canvas = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(canvas)
    for y, row in enumerate(rows):
        for x, (clip, title, color) in enumerate(row):
            corner = x * (width + GAP), y * (height + HEAD + GAP)
            draw.text((corner[0] + 1, corner[1] + 1), title[: width // 6], fill=color)
            image = Image.fromarray(np.asarray(clip[time])).resize((width, height), Image.Resampling.NEAREST)
            canvas.paste(image, (corner[0], corner[1] + HEAD))
    return canvas
