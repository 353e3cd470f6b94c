"""Computes the flow of videos once: `python -m hcml_jax.compute_flow ROOT --stride 8 --out FOLDER`.

The output is used with `config.data.flow=FOLDER`: flow from every `--every`-th frame of each video to the one `--over`
frames later, and how much the motion changes there. Interrupted work is resumed. Several processes share the work with
`--shard 0/4`, `--shard 1/4`, ...; each splits pairs of frames over its devices.
"""

import argparse
import functools
import pathlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from typing import NamedTuple

import jax
import numpy as np

from data_pipelines.config import is_network
from data_pipelines.errors import DataError, VideoError
from data_pipelines.flow import dis_flow, opencv
from data_pipelines.flow_files import (
    FlowDescription,
    VideoMotion,
    add_motion,
    describe,
    flow_name,
    read_motion,
    save_flow,
)
from data_pipelines.table import read_table
from hcml_jax.config import ConfigError, UserError
from hcml_jax.files import DAMAGED, read_array
from hcml_jax.flow_networks import flow_network
from hcml_jax.ops import motion_difference
from hcml_jax.ops.motion_difference import WEIGHTINGS
from hcml_jax.progress import Progress
from hcml_jax.training.mesh import make_mesh
from hcml_jax.visualization import draw_motion, save_figure

TRUTH = "truth"
DRAWN = 6  # videos whose change of motion is drawn
PAIRS = 16  # pairs of frames per call of a network
SIDES = 8  # sides of resized frames are multiples of this, so that networks get few different sizes


class Provider(NamedTuple):
    """What computes flow.

    Attributes:
      of_pairs: pairs of frames, uint8 `[N, 2, H, W, 3]` -> flow `[N, H, W, 2]` from each first one to its second, in
        pixels; None: flow is that of the table.
      least: minimum side of its frames, in pixels.
    """

    of_pairs: Callable[[np.ndarray], np.ndarray] | None
    least: int = 1


def main(arguments: Sequence[str] | None = None) -> None:
    """Compute missing flow, and list the videos that were left out."""
    given = _parser().parse_args(arguments)
    try:
        if find_spec("av") is None:
            raise DataError("reading videos needs PyAV: pip install 'hcml_jax[data]'")
        shard, shards = _shard(given.shard)
        every, over = given.every or given.stride, given.over or given.stride
        description = FlowDescription(
            provider=given.provider,
            stride=given.stride,
            over=over,
            every=every,
            short_side=given.short_side,
            scale=given.scale,
            weighting=given.weighting,
        )
        provider = make_provider(given.provider)
        _check(description, provider)
        truths = {row.path: row.flow for row in read_table(given.root, given.table)}
        videos = dict([*truths.items()][shard::shards])
        describe(given.out, description)
        left_out = compute(videos, given.root, given.out, description, provider, shard)
    except (UserError, OSError) as error:
        sys.exit(f"{type(error).__name__}: {error}")
    _draw([flow_name(given.root, video) for video in videos], given.out, every)
    for fault in left_out:
        print(f"left out: {fault}", file=sys.stderr)
    print(f"flow of {len(videos) - len(left_out)} of {len(videos)} videos in {given.out}")
    sys.exit(1 if left_out else 0)


def compute(
    videos: Mapping[pathlib.Path, pathlib.Path | None],
    root: pathlib.Path,
    out: pathlib.Path,
    description: FlowDescription,
    provider: Provider,
    shard: int = 0,
) -> list[str]:
    """Store the flow of videos that have none yet, or have changed since; return why videos were left out.

    `videos` maps the path of each video to that of its true flow, or None.
    """
    known, left_out = read_motion(out), []
    names = {video: flow_name(root, video) for video in videos}
    left = [video for video in videos if not _finished(video, out / names[video], known.get(names[video]))]
    with Progress("flow", len(videos), "videos", done=len(videos) - len(left)) as progress:
        for video in left:
            size = video.stat().st_size if video.exists() else 0
            try:
                flow, shape = flow_of(video, videos[video], description, provider)
            except VideoError as error:
                left_out.append(str(error))
                entry = VideoMotion(names[video], size, fault=str(error))
            else:
                save_flow(out / names[video], flow)
                entry = VideoMotion(names[video], size, *shape, tuple(motion_of(flow, description).tolist()))
            add_motion(out, shard, entry)
            progress.add()
    return left_out


def _draw(names: Sequence[str], out: pathlib.Path, every: int) -> None:
    """Draws how the motion of a few videos changes, to `motion.png`."""
    known = read_motion(out)
    shown = [known[name] for name in names if name in known and known[name].motion][:DRAWN]
    if shown:
        curves = {one.flow: (every * np.arange(len(one.motion)), np.array(one.motion, float)) for one in shown}
        save_figure(draw_motion(curves), out / "motion.png")


def _finished(video: pathlib.Path, flow: pathlib.Path, entry: VideoMotion | None) -> bool:
    """Whether the flow of a video is there, and the video has as many bytes as it had then."""
    known = entry is not None and not entry.fault and flow.exists() and video.exists()
    return known and video.stat().st_size == entry.size


def flow_of(
    video: pathlib.Path, truth: pathlib.Path | None, description: FlowDescription, provider: Provider
) -> tuple[np.ndarray, tuple[int, int, int]]:
    """Flow `[N, H, W, 2]` of a video, from every `every`-th frame to the one `over` frames later; and the video's
    frames, height and width.

    Raises:
      VideoError: it cannot be read, or is too short or too small for a pair.
    """
    from data_pipelines.video import probe, read_frames  # needs PyAV

    info, over = probe(video), description.over
    shape = info.num_frames, info.height, info.width
    first = np.arange(0, info.num_frames - over, description.every)
    if not len(first):
        raise VideoError(f"{video}: {info.num_frames} frames, but a pair spans {over + 1}")
    if provider.of_pairs is None:
        return _true_flow(video, truth, shape)[first], shape
    size = _size(info.height, info.width, description.short_side)
    if min(size) < provider.least:
        raise VideoError(f"{video}: {size[0]} x {size[1]} pixels, but {description.provider} needs {provider.least}")
    wanted = np.unique([first, first + over])
    frames = dict(zip(wanted.tolist(), read_frames(video, wanted, info, size), strict=True))
    pairs = np.stack([np.stack([frames[t], frames[t + over]]) for t in first.tolist()])
    return provider.of_pairs(pairs), shape


def _true_flow(video: pathlib.Path, truth: pathlib.Path | None, shape: tuple[int, int, int]) -> np.ndarray:
    """Read a video's flow `[T - 1, H, W, 2]` from the file that the table names."""
    if truth is None:
        raise VideoError(f"{video}: the table's column 'flow' names no file")
    try:
        flow = read_array(truth, "flow")
    except DAMAGED as error:
        raise VideoError(f"{video}: {truth} cannot be read ({error})") from error
    frames, height, width = shape
    if flow.shape != (frames - 1, height, width, 2):
        raise VideoError(f"{video}: {truth} has shape {flow.shape}, the video needs {(frames - 1, height, width, 2)}")
    return flow.astype(np.float32)


def motion_of(flow: np.ndarray, description: FlowDescription) -> np.ndarray:
    """How much the motion changes from each flow map to the one a stride later, `[N]`; NaN where there is none."""
    step = description.stride // description.every
    motion = np.full(len(flow), np.nan, np.float32)
    if len(flow) > step:
        pairs = np.stack([flow[:-step], flow[step:]], axis=1)
        how = description.scale, description.weighting
        parts = [_motion(part, *how)[:number] for part, number in _parts(pairs, PAIRS)]
        motion[:-step] = np.concatenate(parts)
    return motion


@functools.partial(jax.jit, static_argnums=(1, 2))
def _motion(pairs: jax.Array, scale: int, weighting: str) -> jax.Array:
    """The motion difference `[N]` of pairs of flow maps `[N, 2, H, W, 2]`."""
    return jax.vmap(functools.partial(motion_difference, scale=scale, weighting=weighting))(pairs)[:, 0]


def make_provider(name: str) -> Provider:
    """The provider of a name: "dis"; "raft:DIR", imported weights; "hcml:DIR" or "hcml:sprites", level 0 of a network;
    "truth", the table's flow, which is stored unchanged.

    Raises:
      ConfigError: there is no such provider, or DIR holds something else.
    """
    if name == "dis":
        opencv()
        return Provider(lambda pairs: np.stack([dis_flow(pair)[0] for pair in pairs]))
    if name == TRUTH:
        return Provider(None)
    if not is_network(name):
        raise ConfigError(f"--provider must be dis, raft:DIR, hcml:DIR or truth, not {name!r}")
    network = flow_network(name)
    return Provider(_in_parts(lambda pairs: network(pairs)[:, 0]), network.least)


def _in_parts(network: Callable) -> Callable[[np.ndarray], np.ndarray]:
    """A network on `PAIRS` pairs at a time, split over the devices."""
    mesh = make_mesh()
    split = jax.sharding.NamedSharding(mesh, jax.P(mesh.axis_names[0]))
    size = -(-PAIRS // mesh.size) * mesh.size
    compiled = jax.jit(network, in_shardings=split, out_shardings=split)

    def flow(pairs: np.ndarray) -> np.ndarray:
        return np.concatenate([np.asarray(compiled(part))[:number] for part, number in _parts(pairs, size)])

    return flow


def _parts(pairs: np.ndarray, size: int) -> Iterator[tuple[np.ndarray, int]]:
    """Yield parts of length `size`, the last padded with its last pair, and the number of real pairs in each."""
    for start in range(0, len(pairs), size):
        part = pairs[start : start + size]
        yield np.concatenate([part, part[-1:].repeat(size - len(part), axis=0)]), len(part)


def _size(height: int, width: int, short_side: int) -> tuple[int, int]:
    """The size of frames that are compared; sides of resized ones are multiples of `SIDES`."""
    if not short_side:
        return height, width
    scale = short_side / min(height, width)
    return tuple(max(SIDES, round(side * scale / SIDES) * SIDES) for side in (height, width))


def _shard(text: str) -> tuple[int, int]:
    try:
        shard, shards = (int(part) for part in text.split("/"))
    except ValueError:
        shard = shards = -1
    if not 0 <= shard < shards:
        raise ConfigError(f"--shard must be i/n, 0 <= i < n, not {text!r}")
    return shard, shards


def _check(description: FlowDescription, provider: Provider) -> None:
    for name, least in (("stride", 1), ("over", 1), ("every", 1), ("short_side", 0), ("scale", 1)):
        if (value := getattr(description, name)) < least:
            raise ConfigError(f"--{name.replace('_', '-')} must be {least} or more, not {value}")
    if 0 < description.short_side < provider.least:
        raise ConfigError(
            f"--short-side {description.short_side}: {description.provider} needs frames of {provider.least} pixels or "
            "more"
        )
    if description.provider == TRUTH and (description.over > 1 or description.short_side):
        raise ConfigError(
            "--provider truth needs --over 1 (or --stride 1) and --short-side 0: flow is stored as it is, from each "
            "frame to the next"
        )
    if description.stride % description.every:
        raise ConfigError(f"--every {description.every} must divide --stride {description.stride}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m hcml_jax.compute_flow", description=__doc__)
    parser.add_argument("root", type=pathlib.Path, help="folder of videos, as config.data.root")
    parser.add_argument("--table", default="", help="as config.data.table")
    parser.add_argument("--out", type=pathlib.Path, required=True, help="the folder to write")
    parser.add_argument("--stride", type=int, required=True, help="as config.data.stride")
    parser.add_argument("--over", type=int, default=0, help="frames that flow is over; the stride if not given")
    parser.add_argument("--every", type=int, default=0, help="frames from pair to pair; the stride if not given")
    parser.add_argument("--short-side", type=int, default=128, help="of the frames that are compared; 0: as they are")
    parser.add_argument("--scale", type=int, default=28, help="cells of motion boundaries, in pixels (MSCL: 28)")
    parser.add_argument("--weighting", choices=WEIGHTINGS, default="softmax", help="of boundaries, in that change")
    parser.add_argument("--provider", default="dis", help="dis, raft:DIR (imported), hcml:DIR, hcml:sprites or truth")
    parser.add_argument("--shard", default="0/1", help="which part of the videos, i/n")
    return parser


if __name__ == "__main__":
    main()
