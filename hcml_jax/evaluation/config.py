"""The fields of `config.evaluation`."""

import dataclasses
import re
from typing import NamedTuple

from hcml_jax.batch import CORNERS
from hcml_jax.config import ConfigError, nearest
from hcml_jax.evaluation.baselines import BASELINES
from hcml_jax.evaluation.readouts import parse_readout


@dataclasses.dataclass(frozen=True)
class Protocol:
    """Requirements of a protocol.

    Attributes:
      lacking: reason to report if it has nothing to measure.
      gallery: whether it learns from the labels of split "train".
    """

    lacking: str = ""
    gallery: bool = False


_UNLABELLED = "the clips have no labels"
PROTOCOLS = {
    "recognition": Protocol("the network has not learnt to classify"),
    "flow": Protocol("the network learns no flow, and the clips' is not known"),
    "prediction": Protocol("the method makes no frames and gives no flow of every frame"),
    "neighbours": Protocol(_UNLABELLED, gallery=True),
    "linear": Protocol(_UNLABELLED, gallery=True),
    "retrieval": Protocol(_UNLABELLED, gallery=True),
    "controls": Protocol(
        f"{_UNLABELLED}, or neither recognition, neighbours nor linear is among the protocols and possible"
    ),
    "cost": Protocol(),
}


@dataclasses.dataclass(frozen=True)
class EvaluationConfig:
    """How a network is evaluated.

    Attributes:
      protocols: what to do, in this order; docs/evaluation.md says what each measures.
      split: the table's split that is reported; galleries and probes are of split "train".
      batch_size: clips per batch; 0: that of training.
      views: sets of views that recognition averages over, for example "10x3": see `parse_views`. Each is reported; all
        other protocols use the first.
      crop, short_side: side of a square crop, and shorter side of its frame, in pixels; 0: those of the data.
      selection: split whose top-1 chooses one of several `classifiers` of a method.
      average: what is averaged over views: "probabilities" or "scores" (before the softmax).
      readouts: grids that maps are pooled to, beside their means: see `parse_readout`.
      baselines: baselines without a network, for comparison.
      neighbours: values of k for nearest-neighbour classification; "knn" uses the first.
      temperature: of weighted votes.
      recall_at: k of retrieval.
      figure_clips: how many clips the pictures show; 0: no pictures are drawn.
    """

    protocols: tuple[str, ...] = tuple(PROTOCOLS)
    split: str = "test"
    batch_size: int = 0
    views: tuple[str, ...] = ("1x1",)
    crop: int = 0
    short_side: int = 0
    selection: str = "validation"
    average: str = "probabilities"
    readouts: tuple[str, ...] = ("Tx1x1", "2x2", "3x3")
    baselines: tuple[str, ...] = tuple(BASELINES)
    neighbours: tuple[int, ...] = (10, 1, 5, 20)
    temperature: float = 0.07
    recall_at: tuple[int, ...] = (1, 5, 10, 20, 50)
    figure_clips: int = 4

    def __post_init__(self):
        for field, known in (("protocols", PROTOCOLS), ("baselines", BASELINES), ("average", _AVERAGES)):
            given = getattr(self, field)
            for name in (given,) if isinstance(given, str) else given:
                if name not in known:
                    raise ConfigError(f"{field}: there is no {name!r}. {nearest(name, known)}")
        for field, least in (("figure_clips", 0), ("batch_size", 0), ("crop", 0), ("short_side", 0)):
            if getattr(self, field) < least:
                raise ConfigError(f"{field} must be {least} or more, not {getattr(self, field)}")
        for field in ("neighbours", "recall_at", "views"):
            given = getattr(self, field)
            if not given or len(set(given)) < len(given):
                raise ConfigError(f"{field} must name one or more, each once, not {given}")
        for field in ("neighbours", "recall_at"):
            if min(getattr(self, field)) < 1:
                raise ConfigError(f"{field} must be 1 or more each, not {getattr(self, field)}")
        if self.temperature <= 0:
            raise ConfigError(f"temperature must be above 0, not {self.temperature}")
        for name in self.readouts:
            parse_readout(name)
        for name in self.views:
            parse_views(name)


_AVERAGES = ("probabilities", "scores")


class Views(NamedTuple):
    """Views of a video: `clips` clips times `squares` crops, and twice as many if each is `mirrored` too.

    With `corners`, the five crops are the four corners and the middle of a frame.
    """

    clips: int
    squares: int
    corners: bool = False
    mirrored: bool = False

    @property
    def count(self) -> int:
        """V, clips of each video."""
        return self.clips * self.squares * (2 if self.mirrored else 1)


def parse_views(name: str) -> Views:
    """Parse the name of views: "10x3", ten clips evenly spread over a video times three crops along the longer side of
    each; "10xcorners", times four corners and the middle; "10xcorners+flip", each mirrored too.

    Raises:
      ConfigError: the name is none of these.
    """
    found = re.fullmatch(r"([1-9]\d*)x([1-9]\d*|corners)(\+flip)?", name)
    if not found:
        raise ConfigError(
            f"views: found {name!r}, must be clips x squares, such as '1x1' or '10x3', or clips x 'corners'; with "
            "'+flip' each is seen mirrored too"
        )
    clips, squares, flip = found.groups()
    corners = squares == "corners"
    return Views(int(clips), CORNERS if corners else int(squares), corners, bool(flip))
