"""Features of all clips of a split, extracted once, over all devices and processes, into files."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from hcml_jax import cluster
from hcml_jax.batch import Batch
from hcml_jax.evaluation.baselines import BASELINES, SIDE
from hcml_jax.evaluation.clips import Clips
from hcml_jax.evaluation.controls import CONTROLS
from hcml_jax.evaluation.feature_files import PREFIX, Extracted, FeatureFiles
from hcml_jax.evaluation.readouts import Readout, parse_readout, pool
from hcml_jax.methods.base import Method, Variables
from hcml_jax.models import paired
from hcml_jax.weights.variables import digest

CLIPS_A_FILE = 2048


@dataclasses.dataclass(frozen=True)
class Source:
    """A source of features of clips.

    Attributes:
      name: name of their folder.
      encode: clips uint8 `[B, T, H, W, 3]` -> (name -> `[B, C]`, class scores or None).
      about: plain values that identify it.
    """

    name: str
    encode: Callable[[Any], tuple[dict[str, jax.Array], jax.Array | None]]
    about: Mapping[str, Any]


def make_encoder(method: Method, readouts: Sequence[str]) -> Callable:
    """A jitted function (variables, clips) -> (features, class scores or None), of one forward pass.

    Features are the method's own and, named for example "level0/3x3", its maps pooled by every read-out; a motion map's
    last frame, which is paired with itself, is left out.
    """

    @jax.jit
    def encode(variables: Variables, clips: jax.Array):
        encoded = method.encode(variables, clips)
        pooled = {
            f"{level}/{name}": pool(paired(motion), parse_readout(name))
            for level, motion in encoded.maps.items()
            for name in readouts
        }
        if encoded.last is not None:
            pooled |= {f"backbone/{name}": pool(encoded.last, parse_readout(name)) for name in readouts}
        return encoded.features | pooled, encoded.logits

    return encode


def network(name: str, variables: Variables, encoder: Callable, readouts: Sequence[str]) -> Source:
    """The source of a network's features: its variables and the function from `make_encoder`."""
    about = {"network": digest(variables), "readouts": list(readouts)}
    return Source(name, functools.partial(encoder, variables), about)


def baseline(name: str, readouts: Sequence[str]) -> Source:
    """The source of a baseline's features: its map averaged over time, by the baseline's name, and its read-outs."""
    grids = {name: Readout(1, SIDE, SIDE)} | {f"{name}/{grid}": parse_readout(grid) for grid in readouts}

    def encode(clips):
        features = BASELINES[name](clips)
        return {feature: pool(features, grid) for feature, grid in grids.items()}, None

    return Source(name, encode, {"baseline": name, "readouts": list(readouts)})


def extract(source: Source, clips: Clips, split: str, folder: pathlib.Path, control: str, features: bool) -> Extracted:
    """Extract a source's features of the labelled videos of a split, or read them from files that exist already.

    An interrupted extraction is resumed.

    Args:
      source: source of the features.
      clips: clips of all splits.
      split: split of the videos.
      folder: folder of the run's features.
      control: name in `CONTROLS` of a change to the clips; "": none.
      features: whether to extract features in addition to class scores.

    Raises:
      FeatureError: a file is damaged, or no labelled video could be read.
    """
    about = {**source.about, **clips.about, "split": split, "control": control, "features": features}
    files = FeatureFiles(folder / "-".join(filter(None, (source.name, split, control, clips.views))))
    cluster.meet()  # the first one may still be scoring
    if cluster.first_then_others(lambda: files.claim(about)):
        cluster.say(f"[evaluate] {files.folder} held features of another network, or of other clips: made anew")
    done = set(files["index"].tolist()) if len(files) else set()
    left = [row for row in clips.rows(split, labelled_only=True) if row not in done]
    size = max(CLIPS_A_FILE // (clips.count * clips.videos), 1) * clips.videos
    for first in range(0, len(left), size):
        batches = clips.batches(split, left[first : first + size], told=source.name)
        arrays = cluster.gather(_arrays(source, batches, control, features))
        if cluster.is_first() and len(arrays["index"]):
            names = {"video": np.array([clips.data.video(row) for row in arrays["index"].tolist()])}
            files.write(arrays | names)
    cluster.meet()
    return Extracted.of(files)


def _arrays(source: Source, batches, control: str, features: bool) -> dict[str, np.ndarray]:
    """This process's part, as in a file of `FeatureFiles`."""
    parts = [_of_batch(source, batch, control, features) for batch in batches]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _of_batch(source: Source, batch: Batch, control: str, features: bool) -> dict[str, np.ndarray]:
    videos, views, *shape = batch.clip.shape
    shown = batch.clip.reshape(videos * views, *shape)
    shown = CONTROLS[control](shown, np.repeat(batch.index, views)) if control else shown
    found, logits = jax.device_get(source.encode(shown))
    means = {name: array.reshape(videos, views, -1).mean(1, np.float32) for name, array in found.items()}
    arrays = {PREFIX + name: array for name, array in means.items()} if features else {}
    if logits is not None:
        arrays["logits"] = logits.reshape(videos, views, *logits.shape[1:])
    arrays |= {"index": batch.index, "label": batch.label, "start": batch.start, "box": batch.box}
    return {name: array[batch.valid] for name, array in arrays.items()}
