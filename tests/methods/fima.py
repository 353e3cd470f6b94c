"""A small FIMA and its batches."""

import functools

import jax.numpy as jnp
import numpy as np

from hcml_jax import augment
from hcml_jax.methods import build_method
from hcml_jax.ops import frame_difference
from tests.methods import tiny

CONFIG = {
    "name": "fima",
    "backbone": {**tiny.BACKBONE, "width": 4, "motion": {}, "temporal_strides": (1, 2, 1, 1)},
    "hidden": 8,
    "channels": 6,
    "decoder": {"width": 8, "heads": 2},
    "temperature": 0.5,
    "queue": 20,
    "pixel_group": 2,
    "momentum": 0.5,
    "batch_norm_group": 2,
    "stages": {"contrast": tiny.schedule(4)},
}
STILL = {
    "flip": False,
    "photometric": {"jitter": 0.0, "grayscale": 0.0, "blur": 0.0},
    "batch_norm_group": 1,
    "decoder": {"width": 8, "heads": 2, "dropout": 0.0},
}
ALONE = dict.fromkeys(("instance_weight", "difference_weight", "pixel_weight", "frame_weight"), 0.0)
SIDES = ("prediction", "target")
CLIP_SHAPE, VIDEO = (8, 48, 48, 3), 60.0  # maps of 2 times and 3 x 3 places; pixels of the video
CELLS, TIMES, CLIPS = 9, 2, 4


def built(**fields):
    return build_method(CONFIG | fields, 0)


def boxes(number, seed=0):
    """(top, left, height, width) inside the video."""
    rng = np.random.default_rng(seed)
    sides = rng.uniform(0.4, 0.9, (number, 2, 2)) * VIDEO
    corners = rng.random((number, 2, 2)) * (VIDEO - sides)
    return np.concatenate([corners, sides], axis=-1).astype(np.float32)


def a_batch(method, seed=0, clips=CLIPS, clip_shape=CLIP_SHAPE):
    given = tiny.batch(clips, seed, clip_shape, reads=method.stages[0].reads)
    return given._replace(box=boxes(clips, seed))


def loss_of(method, train):
    """Not compiled as a whole: what encodes is a program of its own, the same one for most methods here."""
    return functools.partial(method.loss, stage=method.stages[0], train=train)


def pooled(maps):
    return np.asarray(maps).mean((1, 2, 3))


def centre(box, flip, cell, side=3):
    row, column = divmod(cell, side)
    column = side - 1 - column if flip else column
    return np.array([box[0] + (row + 0.5) * box[2] / side, box[1] + (column + 0.5) * box[3] / side])


def same_place(boxes, flips, i, j, threshold=0.7, side=3):
    """Whether cell i of the first view and cell j of the second lie near each other in the video."""
    bins = [np.hypot(box[2] / side, box[3] / side) for box in boxes]
    places = [centre(box, flip, cell, side) for box, flip, cell in zip(boxes, flips, (i, j), strict=True)]
    return np.linalg.norm(places[0] - places[1]) < threshold * max(bins)


class Encodings:
    """What a method's network makes, with one clip a group, of a batch that is not augmented."""

    def __init__(self, method, variables, batch, mode):
        self.method, self.variables, self.mode = method, variables, mode
        self.clips = batch.clip.astype(np.float32) / 255
        self.rgb, self.difference, self.parts = ([of(view) for view in (0, 1)] for of in (self._rgb, self._d, self._l))

    def apply(self, name, *inputs):
        given = {name: self.variables[name] for name in ("params", "batch_stats")}
        return self.method.network.apply(given, *inputs, method=name, mutable=["batch_stats"])[0]

    def _encode(self, clip):
        return self.apply("encode", augment.normalise(clip, *self.method.normalisation), self.mode)

    def _rgb(self, view):
        return self._encode(self.clips[:, view, ::2])

    def _d(self, view):
        first = self.method.config.first_difference
        return self._encode(frame_difference(self.clips[:, view, ::2], first=first))

    def _l(self, view):
        halves = self.clips[:, view, :4], self.clips[:, view, 4:]
        return np.stack([pooled(self._encode(frame_difference(half))) for half in halves], axis=1)

    def decode(self, one, other, name="pixel"):
        return self.apply("decode", self.rgb[one], self.rgb[other], name, self.mode)

    def project(self, x, name="pixel"):
        return np.asarray(self.apply("project", jnp.asarray(x), name))

    def pixels(self, x):
        """`[B, T, 9, D]`."""
        return self.project(x).reshape(CLIPS, TIMES, CELLS, -1)

    def foreground(self, view):
        """Cells above the quantile of the summed activation, for each clip."""
        config, maps = self.method.config, {"rgb": self.rgb[view], "difference": self.difference[view]}
        maps = [np.asarray(maps[name], np.float64) for name in config.foreground_of]
        strength = sum(x.mean((1, 4)).reshape(CLIPS, CELLS) for x in maps)
        least = {0.5: 5, 0.7: 6}[config.background]  # of 9 places
        return [set(np.argsort(row)[least:]) for row in strength]
