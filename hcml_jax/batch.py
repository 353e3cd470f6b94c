"""Interface between the pipeline and a method: what a stage reads, a batch of it, and the source of batches."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

SMALLEST_AREA = 0.05
CORNERS = 5  # squares that are the corners of a frame and its middle


@dataclasses.dataclass(frozen=True)
class Reads:
    """What the examples of a stage hold.

    Attributes:
      clips: V, clips of each video. In training they are drawn independently; in evaluation they are spread evenly.
      area: (least, most) share of the frame that a training clip shows, at a random aspect ratio (random resized
        crop); from 0.05 up, for whole frames are enlarged. None: a square out of the frame, whose shorter side is
        resized first.
      aspect: (least, most) width over height of that share.
      min_offset, max_offset: least and most frames of the video between the start of a training example's first clip
        and those of its others; where a video has no room for the least, as many as it has. None: any.
      future: F, frames read beyond the end of each clip.
      flow: whether optical flow is read, from each frame to the next one, including frames beyond the clip (with
        `compute_flow --over`: from each frame to the one that many frames later).
      crops: in evaluation, number of square crops of each clip, evenly spread along the longer side: V is
        `clips * crops`, the crops of a clip one after the other.
      corners: in evaluation, whether the five crops are at the corners and in the middle instead: top left, top right,
        bottom left, bottom right, middle.
      crop, short_side: in evaluation, the square's side and the frame's shorter side in pixels; 0: those of the data.

    Raises:
      ValueError: a field is out of its range.
    """

    clips: int = 1
    area: tuple[float, float] | None = None
    aspect: tuple[float, float] = (3 / 4, 4 / 3)
    min_offset: int = 0
    max_offset: int | None = None
    future: int = 0
    flow: bool = False
    crops: int = 1
    corners: bool = False
    crop: int = 0
    short_side: int = 0

    def __post_init__(self):
        area, aspect = self.area or (1.0, 1.0), self.aspect
        if self.crops < 1 or self.crop < 0 or self.short_side < 0:
            raise ValueError(f"crops must be 1 or more, crop and short_side 0 or more: {self}")
        if self.corners and self.crops != CORNERS:
            raise ValueError(f"crops must be {CORNERS} where they are the corners and the middle: {self}")
        if self.clips < 1 or self.future < 0 or (self.max_offset or 0) < 0:
            raise ValueError(f"clips must be 1 or more, future and max_offset 0 or more: {self}")
        if not 0 <= self.min_offset <= (self.min_offset if self.max_offset is None else self.max_offset):
            raise ValueError(f"min_offset must be 0 or more, and at most max_offset: {self}")
        if not (SMALLEST_AREA <= area[0] <= area[1] <= 1 and 0 < aspect[0] <= aspect[1]):
            raise ValueError(f"area and aspect must be (least, most), area in {SMALLEST_AREA}..1: {self}")

    @property
    def random(self) -> bool:
        """Whether training needs views that are drawn at random, which data without jitter does not give."""
        return self.clips > 1 or self.area is not None or self.max_offset is not None


ONE_CLIP = Reads()


class Batch(NamedTuple):
    """Examples of B videos with V clips each: numpy arrays from the pipeline, jax arrays in a step.

    Attributes:
      clip: uint8 `[B, V, T, H, W, 3]`, RGB.
      box: float32 `[B, V, 4]`, (top, left, height, width) of what a clip shows, in pixels of the video.
      start: int32 `[B, V]`, its first frame's number in the video.
      consecutive: bool `[B, V, T + F - 1]`, whether the next frame follows in the video: False where a short video
        begins again.
      label: int32 `[B]`, -1 where training may not use one.
      index: int32 `[B]`, row of the table.
      valid: bool `[B]`, False for padding of a batch and for placeholders of unreadable videos.
      future: uint8 `[B, V, F, H, W, 3]`, the frames after each clip; None unless asked for.
      flow: float32 `[B, V, T + F - 1, H, W, 2]`, (u right, v down) in pixels of the clip, from each frame to the next;
        None unless asked for.
    """

    clip: Any
    box: Any
    start: Any
    consecutive: Any
    label: Any
    index: Any
    valid: Any
    future: Any = None
    flow: Any = None


def blank_batch(batch_size: int, clip_shape: tuple[int, ...], reads: Reads = ONE_CLIP, like=np.zeros) -> Batch:
    """A batch of black clips `clip_shape` = `(T, H, W, 3)`, unlabelled; `like(shape, dtype)` makes its arrays."""
    examples = batch_size, reads.clips * reads.crops
    frames, *image = clip_shape
    image = [reads.crop, reads.crop, image[2]] if reads.crop else image
    return Batch(
        clip=like((*examples, frames, *image), np.uint8),
        box=like((*examples, 4), np.float32),
        start=like(examples, np.int32),
        consecutive=like((*examples, frames + reads.future - 1), np.bool_),
        label=like((batch_size,), np.int32),
        index=like((batch_size,), np.int32),
        valid=like((batch_size,), np.bool_),
        future=like((*examples, reads.future, *image), np.uint8) if reads.future else None,
        flow=like((*examples, frames + reads.future - 1, *image[:2], 2), np.float32) if reads.flow else None,
    )


class Data(Protocol):
    """Clips in splits, as `data_pipelines.open_data` gives them.

    Attributes:
      classes: class names; a label is an index into them.
      families: class name -> family name, for classes that have one.
      splits: names of the splits.
      clip_shape: `(T, H, W, 3)` of every clip.
      census: plain values that identify these clips.
      sampling: plain values that describe how evaluation takes clips from a video.
      labelled: rows of split "train" whose label training may use.
      flow_is_true: whether the flow that is read is the ground truth for measuring errors.
      skipped: row -> why it was left out, so far.
    """

    classes: tuple[str, ...]
    families: Mapping[str, str]
    splits: tuple[str, ...]
    clip_shape: tuple[int, int, int, int]
    census: Mapping[str, Any]
    sampling: Mapping[str, Any]
    labelled: frozenset[int]
    flow_is_true: bool
    skipped: Mapping[int, str]

    def num_clips(self, split: str, labelled_only: bool = False) -> int:
        """Number of videos; with `labelled_only`, of those with a label (in "train": that training may use)."""

    def num_labelled(self, split: str) -> int:
        """Number of videos with a label, whether training may use it or not."""

    def video(self, row: int) -> str:
        """The name of the video in this row of the table."""

    def warm_up(self) -> None:
        """Begins, in the background, the preparation for which the first batch would wait."""

    def flow_fault(self, split: str) -> str | None:
        """Why flow cannot be read of every video of the split; None if it can.

        Raises:
          DataError: what computes it is not installed.
        """

    def complete(self, batch: Batch, reads: Reads) -> Batch:
        """Add flow to a batch on its devices, if flow is to be read and a network computes it; traceable."""

    def spread(self, split: str, count: int, labelled_only: bool = False) -> Sequence[int]:
        """Rows of `count` videos, or of all, spread evenly over a split; or over those with a label."""

    def train_batches(
        self,
        batch_size: int,
        *,
        seed: int,
        stage: str,
        reads: Reads = ONE_CLIP,
        first_step: int = 0,
        labelled_only: bool = False,
        shard_index: int = 0,
        num_shards: int = 1,
    ) -> Iterator[Batch]:
        """Training batches for ever, from step `first_step` on: a function of (seed, stage, step) alone.

        `batch_size` is that of the global batch, of which part `shard_index` of `num_shards` equal parts is returned.
        With `labelled_only`, only clips whose label training may use.
        """

    def eval_batches(
        self,
        split: str,
        batch_size: int,
        *,
        reads: Reads = ONE_CLIP,
        only: Sequence[int] | None = None,
        shard_index: int = 0,
        num_shards: int = 1,
    ) -> Iterator[Batch]:
        """Each video of a split (or the rows `only`) once, from the middle, with its true label."""
