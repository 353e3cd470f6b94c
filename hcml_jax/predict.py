"""Classifies a video, and shows its flow: `python -m hcml_jax.predict VIDEO --model DIR`."""

import argparse
import dataclasses
import pathlib
import sys
import tempfile
from collections.abc import Sequence

import numpy as np

from data_pipelines import DataConfig
from data_pipelines.flow import dis_flow
from hcml_jax.config import UserError, build
from hcml_jax.inference import Model, load
from hcml_jax.ops import flow_to_image
from hcml_jax.training.workdir import Workdir
from hcml_jax.weights.shipped import folder_of

CRF = 18  # of the written video
ENDINGS = (".mp4", ".mkv", ".mov")
NO_FLOW = "OpenCV's, for this network has none of its own, or is the export of a recogniser"


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the most probable classes, one a line, and writes the video with its flow beside it."""
    parser = argparse.ArgumentParser(prog="python -m hcml_jax.predict", description=__doc__)
    parser.add_argument("video", type=pathlib.Path)
    parser.add_argument("--model", type=pathlib.Path, required=True, help="a run's workdir, its export, or sprites")
    parser.add_argument("--clips", type=int, default=10, help="clips of the video that are averaged over")
    parser.add_argument("--top", type=int, default=5, help="classes to print")
    parser.add_argument("--out", type=pathlib.Path, help="the video with its flow; VIDEO.flow.mp4 here if not given")
    parser.add_argument("--seconds", type=float, default=20.0, help="most of the video that is written")
    given = parser.parse_args(arguments)
    if min(given.clips, given.top, given.seconds) <= 0:
        parser.error("--clips, --top and --seconds must be above 0")
    out = given.out or pathlib.Path(f"{given.video.name}.flow.mp4")
    if out.suffix not in ENDINGS:
        parser.error(f"--out {out} must end in {', '.join(ENDINGS)}")
    try:
        model, config = load(given.model), data_config(given.model)
        if model.recognises:
            for name, share in predict(model, given.video, config, given.clips)[: given.top]:
                print(f"{share:.3f}  {name}")
        else:
            print("this network has not learnt to classify", file=sys.stderr)
        write_flow(model, given.video, config, out, given.seconds)
        print(f"flow in {out}" + ("" if model.gives_flow else f": {NO_FLOW}"))
    except (UserError, OSError) as error:
        sys.exit(f"{type(error).__name__}: {error}")


def data_config(model: pathlib.Path) -> DataConfig:
    """The config by which clips are taken from videos for the network of `load(model)`.

    Raises:
      ConfigError: the folder holds neither a run nor an export.
    """
    config = build(DataConfig, Workdir(folder_of(model)).read()["config"]["data"], "config.data")
    root = config.root or "."  # rendered clips have none
    return dataclasses.replace(config, root=root, sprites=None, short_clips="loop", cache_mb=0)


def predict(model: Model, video: pathlib.Path, config: DataConfig, clips: int = 10) -> list[tuple[str, float]]:
    """(class, probability), most probable first, the mean over clips spread evenly over the video.

    Raises:
      DataError: the video cannot be read.
      ConfigError: the network has not learnt to classify.
    """
    from data_pipelines.one_video import read_clips_of

    shares = np.asarray(model.predict(read_clips_of(video, config, clips))).mean(0)
    return [(model.classes[i], float(shares[i])) for i in np.argsort(-shares)]


def write_flow(model: Model, video: pathlib.Path, config: DataConfig, out: pathlib.Path, seconds: float) -> None:
    """Writes the video, as the network sees it, and beside it the flow of its lowest level in Baker's colours.

    If the network has no flow, it is that of OpenCV's DIS.

    Raises:
      DataError: the video cannot be read.
    """
    from data_pipelines.one_video import read_whole
    from data_pipelines.write_video import encode

    frames, rate = read_whole(video, config, seconds)
    flow = flow_of(model, frames) if model.gives_flow else dis_flow(frames)
    longest = float(np.percentile(np.linalg.norm(flow, axis=-1), 99.5))
    colors = np.asarray(flow_to_image(flow, max(longest, 1e-3)))
    beside = np.concatenate([frames[:-1], np.round(255 * colors).astype(np.uint8)], axis=2)
    height, width = (n // 2 * 2 for n in beside.shape[1:3])
    with tempfile.TemporaryDirectory(dir=out.parent) as folder:  # the ending names the container
        whole = pathlib.Path(folder) / f"flow{out.suffix or '.mp4'}"
        encode(beside[:, :height, :width], whole, crf=CRF, rate=max(1, round(rate)))
        whole.replace(out)


def flow_of(model: Model, frames: np.ndarray) -> np.ndarray:
    """Flow `[N - 1, H, W, 2]` from each frame of a video to the next, in pixels, clip by clip.

    Where the lowest level strides in time, its flow is spread evenly over the frames between.
    """
    length, pairs = model.clip_shape[0], len(frames) - 1
    found = []
    for first in range(0, pairs, length - 1):
        places = np.minimum(np.arange(first, first + length), len(frames) - 1)
        level, flow = min(model.flow(frames[places][None]).items())
        gaps = np.diff(model.method.frames_of(length)[level])
        spread = np.repeat(np.asarray(flow[0]) / gaps[:, None, None, None], gaps, axis=0)
        found.append(np.pad(spread, [(0, length - 1 - len(spread)), (0, 0), (0, 0), (0, 0)], mode="edge"))
    return np.concatenate(found)[:pairs]


if __name__ == "__main__":
    main()
