"""A look at what a method is trained on: `python -m data_pipelines.browse --config configs/hcml_sprites.py --out DIR`.

Draws clips of the first training batch of a stage: `clips.png`, the first frame of each with the box that the clip
shows, some of its frames as training changes them, their times and the label; and `clips.webp`, the same clips moving.
Any field of the config can be set, as for `launch.py`.
"""

import dataclasses
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
from absl import app, flags
from ml_collections import config_flags

from hcml_jax.command_line import parse

_CONFIG = config_flags.DEFINE_config_file("config", None, "The experiment, a file of configs/.")
_OUT = flags.DEFINE_string("out", None, "Folder of the pictures.")
_CLIPS = flags.DEFINE_integer("clips", 6, "How many videos are shown.")
_STAGE = flags.DEFINE_string("stage", "", "Of which stage; the first if not given.")
flags.mark_flags_as_required(["config", "out"])

TIMES = 5  # frames of a clip that are drawn
INCHES = 1.5  # a picture


def main(argv: list[str]) -> None:
    """Draws both pictures; an expected error ends in one line."""
    from hcml_jax.config import UserError

    if len(argv) > 1:
        sys.exit(f"it takes flags alone; what is {argv[1]!r}?")
    try:
        for path in browse(_CONFIG.value.to_dict(), Path(_OUT.value), _CLIPS.value, _STAGE.value):
            print(path)
    except (UserError, OSError, ValueError) as error:
        sys.exit(f"{type(error).__name__}: {error}")


def browse(config: dict, out: Path, count: int, stage_name: str = "") -> tuple[Path, Path]:
    """Draws `count` clips of a stage's first batch; returns both files.

    Raises:
      ConfigError: there is no such stage, or `count` is below 1.
      DataError: the clips cannot be read.
    """
    import jax

    from data_pipelines import open_data
    from hcml_jax import augment, methods
    from hcml_jax.config import ConfigError, build, nearest
    from hcml_jax.experiment import ExperimentConfig
    from hcml_jax.visualization import save_figure
    from hcml_jax.visualization.moving import save_moving

    if count < 1:
        raise ConfigError(f"--clips must be 1 or more, not {count}")
    config = build(ExperimentConfig, config)
    future = max(stage.reads.future for stage in methods.build_method(config.method, 2).stages)
    data = open_data(config.data, None, future=future)
    method = methods.build_method(config.method, len(data.classes))
    stages = {stage.name: stage for stage in method.stages}
    if stage_name and stage_name not in stages:
        raise ConfigError(f"--stage: there is no {stage_name!r}. {nearest(stage_name, stages)}")
    stage = stages[stage_name] if stage_name else method.stages[0]
    reads, which = dataclasses.replace(stage.reads, flow=False), {"labelled_only": stage.labelled_only}
    batch = next(data.train_batches(count, seed=config.seed, stage=stage.name, reads=reads, **which))
    views = batch.clip.shape[1]
    clips = augment.to_float(np.asarray(batch.clip).reshape(-1, *batch.clip.shape[2:]))
    clips = np.asarray(method.augmented(clips, jax.random.key(config.seed)))
    seen = [_describe(data, batch, *divmod(number, views), clip) for number, clip in enumerate(clips)]
    sheet = save_figure(_sheet(seen), out / "clips.png")
    moving = [((255 * one.clip).round().astype(np.uint8), one.title, "black") for one in seen]
    return sheet, save_moving([moving[i : i + views] for i in range(0, len(moving), views)], out / "clips.webp")


class Seen(NamedTuple):
    """A clip and where it comes from.

    Attributes:
      title: video and label.
      frame: its first frame whole, uint8 `[H, W, 3]`; None: it is not kept.
      box: (top, left, height, width) of the clip in it.
      clip: `[T, H, W, 3]` in [0, 1], as training changes it.
      times: of its frames: seconds, or numbers where the file tells no rate.
    """

    title: str
    frame: np.ndarray | None
    box: np.ndarray
    clip: np.ndarray
    times: list[str]


def _describe(data, batch, video: int, view: int, clip: np.ndarray) -> Seen:
    row, label, start = int(batch.index[video]), int(batch.label[video]), int(batch.start[video, view])
    frame, rate = data.whole_frame(row, start)
    numbers = [start + data.config.stride * t for t in range(len(clip))]
    times = [f"{number / rate:.2f} s" if rate else f"frame {number}" for number in numbers]
    title = f"{data.video(row)}: {data.classes[label] if label >= 0 else 'no label'}"
    return Seen(title, frame, np.asarray(batch.box[video, view]), clip, times)


def _sheet(seen: list[Seen]):
    """A row for each clip: the frame with its box, and some of the clip's frames."""
    from matplotlib.patches import Rectangle

    from hcml_jax.visualization.figure import new_figure, show_image

    shown = np.linspace(0, len(seen[0].clip) - 1, min(TIMES, len(seen[0].clip))).astype(int)
    figure = new_figure(INCHES * (len(shown) + 2), (INCHES + 0.4) * len(seen))
    for part, one in zip(np.atleast_1d(figure.subfigures(len(seen), 1)), seen, strict=True):
        part.suptitle(one.title, fontsize=9)
        first, *others = part.subplots(1, len(shown) + 1, width_ratios=[2, *[1] * len(shown)])
        if one.frame is None:
            first.axis("off")
        else:
            top, left, height, width = one.box
            show_image(first, one.frame)
            first.add_patch(Rectangle((left - 0.5, top - 0.5), width, height, fill=False, color="red", linewidth=1.5))
        for axes, t in zip(others, shown, strict=True):
            show_image(axes, one.clip[t], note=one.times[t])
    return figure


if __name__ == "__main__":
    app.run(main, flags_parser=parse)
