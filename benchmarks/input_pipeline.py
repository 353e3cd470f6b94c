"""Clips a second of the input pipeline: `python benchmarks/input_pipeline.py --videos DIR --workdir runs/input`.

Videos of DIR are encoded again, in 320 x 240 and 340 x 256 pixels, H.264 and MPEG-4, `--files` in all. Training clips
(16 frames, stride 2, shorter side 256 to 320, 224 x 224) are read of them by this pipeline, from the files and from
each layout of `data_pipelines.prepare`, and by a DataLoader of PyTorch with PyAV, decord and torchcodec, where these
are installed. Loaders take turns, each in a process of its own. A clip's cost is the time that all of its processes
have on a core, so that other work on the machine does not count; peak memory is that of all processes.

`--long N` reads N clips more with one loader, and prints its memory along the way.
"""

import argparse
import functools
import itertools
import multiprocessing
import os
import pathlib
import random
import statistics
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec

import numpy as np
from runs import call

from hcml_jax.config import UserError

SIZES = (240, 320), (256, 340)
CODECS = {"libx264": ".mp4", "mpeg4": ".avi"}
LONGEST = 300  # frames of a file
FRAMES, STRIDE, SHORT_SIDE, CROP, BATCH = 16, 2, (256, 320), 224, 8
LAYOUTS = ("frames", "video", "original")


def write_files(videos: pathlib.Path, folder: pathlib.Path, count: int) -> None:
    """Encodes the videos again, round and round, until there are so many files."""
    import av

    from data_pipelines.table import video_files
    from data_pipelines.video import probe, read_clips
    from data_pipelines.video_info import Part

    folder.mkdir(parents=True, exist_ok=True)
    sources, kinds = video_files(videos), list(itertools.product(SIZES, CODECS))
    for number in range(count):
        source, (size, codec) = sources[number // len(kinds) % len(sources)], kinds[number % len(kinds)]
        path = folder / f"{number:05d}{CODECS[codec]}"
        if path.exists():
            continue
        info = probe(source)
        frames = range(min(info.num_frames, LONGEST))
        (clip,) = read_clips(source, [(frames, Part(info.whole.box, size))], info)
        partial = path.with_suffix(f".part{path.suffix}")
        with av.open(str(partial), "w") as container:
            options = {"crf": "23"} if codec == "libx264" else {"q": "5"}
            stream = container.add_stream(codec, rate=round(info.fps) or 25, options=options)
            stream.height, stream.width = size
            stream.pix_fmt = "yuv420p"
            for frame in clip:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            container.mux(stream.encode(None))
        partial.rename(path)


def prepare(folder: pathlib.Path, out: pathlib.Path, layout: str) -> pathlib.Path:
    """The prepared folder."""
    from concurrent.futures import ThreadPoolExecutor

    from data_pipelines import prepare

    def run(function, shards):
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(function, shards))

    return prepare.prepare("videos", folder, out, prepare.Layout(layout), run, shard_mb=64.0)


def ours(folder: pathlib.Path, workers: int) -> Iterator[np.ndarray]:
    """Batches of this pipeline."""
    from data_pipelines import DataConfig, open_data

    config = DataConfig(
        str(folder), frames=FRAMES, stride=STRIDE, short_side=SHORT_SIDE, crop=CROP, short_clips="loop", workers=workers
    )
    data = open_data(config, folder.parent / f"memory_{folder.name}")
    return (batch.clip for batch in data.train_batches(BATCH, seed=0, stage="benchmark"))


def view(frames: int, height: int, width: int) -> tuple[list[int], tuple[int, int], tuple[int, int]]:
    """Frame numbers, the size of a resized frame, and the corner of a crop, at random."""
    start = random.randrange(max(frames - STRIDE * (FRAMES - 1), 1))
    scale = random.randint(*SHORT_SIDE) / min(height, width)
    size = round(height * scale), round(width * scale)
    corner = tuple(random.randint(0, side - CROP) for side in size)
    return [(start + STRIDE * i) % frames for i in range(FRAMES)], size, corner


def by_pyav(path: str) -> np.ndarray:
    """Seeks to the keyframe before the clip, decodes on, resizes whole frames, and crops them."""
    import av

    with av.open(path) as container:
        stream = container.streams.video[0]
        stream.thread_count = 1
        frames = stream.frames or 100
        wanted, (height, width), (top, left) = view(frames, stream.height, stream.width)
        rate, base = stream.average_rate, stream.time_base
        found = []
        if min(wanted) == wanted[0]:
            container.seek(int(wanted[0] / rate / base), stream=stream)
        for frame in container.decode(stream):
            number = round(float(frame.pts * base * rate)) if frame.pts is not None else len(found)
            if number in wanted[len(found) :]:
                rgb = frame.reformat(width=width, height=height, format="rgb24").to_ndarray()
                found.append(rgb[top : top + CROP, left : left + CROP])
            if len(found) == FRAMES or number >= max(wanted):
                break
        return np.stack((found * FRAMES)[:FRAMES])


def by_decord(path: str) -> np.ndarray:
    """Frames of a random size by decord, cropped."""
    import decord

    bare = decord.VideoReader(path, num_threads=1)
    wanted, (height, width), (top, left) = view(len(bare), *bare[0].shape[:2])
    reader = decord.VideoReader(path, num_threads=1, width=width, height=height)
    return reader.get_batch(wanted).asnumpy()[:, top : top + CROP, left : left + CROP]


def by_torchcodec(path: str) -> np.ndarray:
    """Frames by torchcodec, resized and cropped by PyTorch."""
    import torch
    from torchcodec.decoders import VideoDecoder

    decoder = VideoDecoder(path, num_ffmpeg_threads=1)
    about = decoder.metadata
    wanted, size, (top, left) = view(len(decoder), about.height, about.width)
    frames = decoder.get_frames_at(wanted).data.float()
    frames = torch.nn.functional.interpolate(frames, size, mode="bilinear", antialias=True)
    return frames[:, :, top : top + CROP, left : left + CROP].round().byte().permute(0, 2, 3, 1).numpy()


OTHERS = {"PyAV": ("av", by_pyav), "decord": ("decord", by_decord), "torchcodec": ("torchcodec", by_torchcodec)}


def theirs(read: Callable, folder: pathlib.Path, workers: int) -> Iterator[np.ndarray]:
    """Batches of PyTorch's DataLoader."""
    import torch

    class Clips(torch.utils.data.Dataset):
        paths = sorted(map(str, folder.glob("*.*")))

        def __len__(self):
            return 10**9

        def __getitem__(self, number):
            return read(random.choice(self.paths))

    torch.set_num_threads(1)
    fork = {"multiprocessing_context": "fork", "worker_init_fn": random.seed}
    loader = torch.utils.data.DataLoader(Clips(), BATCH, num_workers=workers, **fork)
    return (batch.numpy() for batch in loader)


def family() -> list[pathlib.Path]:
    """This process and all below it, in /proc."""
    found, left = [], [os.getpid()]
    while left:
        process = left.pop()
        found.append(pathlib.Path(f"/proc/{process}"))
        for children in found[-1].glob("task/*/children"):
            left += map(int, children.read_text().split())
    return found


def core_seconds() -> float:
    """The time that this process and all below it have had on a core."""
    ticks = 0
    for process in family():
        user, system = (process / "stat").read_text().rpartition(")")[2].split()[11:13]
        ticks += int(user) + int(system)
    return ticks / os.sysconf("SC_CLK_TCK")


def memory(kind: str = "VmHWM") -> float:
    """The memory of this process and all below it, in MB: the peak of each, or (VmRSS) now."""
    lines = (line for process in family() for line in (process / "status").read_text().splitlines())
    return sum(int(line.split()[1]) for line in lines if line.startswith(kind)) / 1e3


def measure(make: Callable, folder: pathlib.Path, workers: int, clips: int, long: int, answer) -> None:
    """Sends clips a second of a core, a second, and the peak memory in MB; or what went wrong."""
    try:
        batches = make(folder, workers)
        for _ in range(4):
            next(batches)
        cores, start = core_seconds(), time.perf_counter()
        for _ in range(clips // BATCH):
            assert next(batches).shape[-4:] == (FRAMES, CROP, CROP, 3)
        cores, wall = core_seconds() - cores, time.perf_counter() - start
        number = clips // BATCH * BATCH
        for step in range(0, long, BATCH):
            if step % (long // 10 // BATCH * BATCH) == 0:
                print(f"{step} clips: {memory('VmRSS'):.0f} MB", flush=True)
            next(batches)
        answer.send((number / cores, number / wall, memory()))
    except Exception as error:
        answer.send(f"{type(error).__name__}: {error}".splitlines()[0][:200])
    os._exit(0)  # without waiting for what was read ahead


def measured(*given) -> tuple[float, float, float] | str:
    """`measure` in a process of its own."""
    context = multiprocessing.get_context("spawn")
    answer, theirs = context.Pipe(duplex=False)
    process = context.Process(target=measure, args=(*given, theirs))
    process.start()
    theirs.close()
    try:
        found = answer.recv()
    except EOFError:
        found = "its process died"
    process.join()
    return found


def main() -> None:
    """Writes the files, prepares them, and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--videos", type=pathlib.Path, required=True, help="a folder of videos")
    parser.add_argument("--workdir", type=pathlib.Path, required=True)
    parser.add_argument("--files", type=int, default=504)
    parser.add_argument("--clips", type=int, default=400, help="of a loader in a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--loaders", nargs="*", default=[], help="only these")
    parser.add_argument("--long", type=int, default=0, help="clips more, with memory along the way")
    arguments = parser.parse_args()
    files = arguments.workdir / "files"
    write_files(arguments.videos, files, arguments.files)
    loaders = {"here: files": (ours, files)}
    for layout in LAYOUTS:
        loaders[f"here: {layout}"] = ours, prepare(files, arguments.workdir, layout)
    for name, (package, read) in OTHERS.items():
        if find_spec("torch") and find_spec(package):
            loaders[f"DataLoader, {name}"] = functools.partial(theirs, read), files
    if unknown := set(arguments.loaders) - set(loaders):
        raise UserError(f"--loaders: there is no {', '.join(sorted(unknown))}; there are {', '.join(loaders)}")
    loaders = {name: one for name, one in loaders.items() if not arguments.loaders or name in arguments.loaders}
    found = {name: [] for name in loaders}
    for _ in range(arguments.rounds):
        for name, (make, folder) in loaders.items():
            found[name].append(measured(make, folder, arguments.workers, arguments.clips, arguments.long))
            print(f"{name}: {found[name][-1]}", flush=True)
    print("| loader | clips a second of a core | clips a second | peak memory, MB | bytes a video |")
    print("|---|---|---|---|---|")
    for name, rounds in found.items():
        good = [one for one in rounds if not isinstance(one, str)]
        sizes = [path.stat().st_size for path in loaders[name][1].iterdir() if path.is_file()]
        cells = (
            [f"{statistics.median(values):.1f}" for values in zip(*good, strict=True)] if good else [rounds[0], "", ""]
        )
        print(f"| {name} | {' | '.join(cells)} | {sum(sizes) / arguments.files:,.0f} |")


if __name__ == "__main__":
    call(main)
