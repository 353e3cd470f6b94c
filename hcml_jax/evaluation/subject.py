"""The subject of an evaluation: networks and baselines on clips, and results that protocols share."""

import functools
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import jax
import numpy as np

from hcml_jax.evaluation import extract
from hcml_jax.evaluation.clips import Clips
from hcml_jax.evaluation.config import EvaluationConfig
from hcml_jax.evaluation.feature_files import Extracted
from hcml_jax.evaluation.flow import FlowReader, fit_readouts, make_flow_reader
from hcml_jax.evaluation.neighbours import Nearest, nearest
from hcml_jax.evaluation.networks import Networks
from hcml_jax.evaluation.probe import Probe, fit_probe
from hcml_jax.methods.base import Variables

REPRESENTATION, LAST = "representation", "last"
READOUT_CLIPS = 512


class Subject:
    """A run, an export or imported weights, with data to evaluate them on.

    What is slow is done once, when a protocol first asks for it.

    Attributes:
      method, data, config, networks: of the evaluation.

    Args:
      batch_size: clips at a time, over all devices of all processes.
    """

    def __init__(self, networks: Networks, config: EvaluationConfig, batch_size: int):
        self.method, self.data, self.config, self.networks = networks.method, networks.data, config, networks
        self._batch_size = batch_size
        self._folder = networks.workdir.path / "features"
        self._encoder = extract.make_encoder(self.method, config.readouts)
        self._kept: dict[tuple, Any] = {}

    @property
    def sources(self) -> list[str]:
        """The compared sources of features: the representation first, then networks and baselines beside it."""
        return [REPRESENTATION, *self.networks.beside, *self.config.baselines]

    @property
    def labelled(self) -> bool:
        """Whether the clips have classes."""
        return bool(self.data.classes)

    @property
    def reported(self) -> str:
        """The split that is reported; the first one of the data if that split is missing (videos without labels)."""
        return self.config.split if self.config.split in self.data.splits else self.data.splits[0]

    @property
    def has_flow(self) -> bool:
        """Whether the flow of the clips that are reported is known."""
        return self._knows_flow(self.reported)

    @property
    def flow_names(self) -> tuple[str, ...]:
        """Names of the maps from which the network gives flow."""
        clips = jax.ShapeDtypeStruct((1, *self.data.clip_shape), np.uint8)
        return tuple(jax.eval_shape(self.method.encode, self.variables(REPRESENTATION), clips).flow)

    @property
    def makes_frames(self) -> bool:
        """Whether the network predicts the frame that follows each frame, and the frame after a clip can be read."""
        clips = jax.ShapeDtypeStruct((1, *self.data.clip_shape), np.uint8)
        made = jax.eval_shape(self.method.next_frames, self.variables(REPRESENTATION), clips)
        return made is not None and self.reads_future

    @property
    def reads_future(self) -> bool:
        """Whether the frame behind a clip can be read."""
        return any(stage.reads.future for stage in self.method.stages)

    @functools.cached_property
    def flow_readouts(self) -> dict[str, np.ndarray]:
        """Level -> weights of its linear read-out of flow, fitted on split "train"; empty if its flow is unknown."""
        if "train" not in self.data.splits or not self._knows_flow("train"):
            return {}
        rows = self.data.spread("train", READOUT_CLIPS)
        batches = self.clips("1x1").batches("train", rows, flow=True, told="flow")
        return fit_readouts(self.method, self.variables(REPRESENTATION), batches)

    @functools.cached_property
    def flow_reader(self) -> FlowReader:
        """Clips -> flow of the representation's heads, and of its linear read-outs."""
        return make_flow_reader(self.method, self.variables(REPRESENTATION), self.flow_readouts)

    def _knows_flow(self, split: str) -> bool:
        return self.data.flow_is_true and self.data.flow_fault(split) is None

    def variables(self, name: str) -> Variables:
        """A network's, on this process's devices."""
        return self._once(self.networks.load, self.networks.same(name))

    def clips(self, views: str = "") -> Clips:
        """The clips with views `views`; "": the first views, which most protocols use."""
        size = {"crop": self.config.crop, "short_side": self.config.short_side}
        return Clips(self.data, self._batch_size, self.networks.layout, views or self.config.views[0], **size)

    def extracted(self, source: str, split: str, control: str = "", views: str = "") -> Extracted:
        """A source's features and scores of the labelled videos of a split; for views but the first, only scores."""
        return self._once(self._extract, self.networks.same(source), split, control, views or self.config.views[0])

    def gallery(self, source: str) -> Extracted:
        """Features on split "train"."""
        return self.extracted(source, "train")

    def test(self, source: str, control: str = "") -> Extracted:
        """Features on the reported split."""
        return self.extracted(source, self.config.split, control)

    def few_labels(self, source: str) -> Extracted | None:
        """The videos of the gallery whose label training may use; None if those are all."""
        gallery = self.gallery(source)
        few = np.isin(gallery.index, list(self.data.labelled))
        return None if few.all() else gallery.where(few)

    def names(self, source: str, readouts: bool = False) -> list[str]:
        """Names of a source's features; with `readouts`, of the read-outs of its maps, such as "level0/3x3"."""
        return [name for name in self.gallery(source).names if ("/" in name) == readouts]

    def usable(self, ks: Sequence[int]) -> list[int]:
        """The values k that do not exceed the size of the gallery."""
        return [k for k in ks if k <= len(self.gallery(REPRESENTATION).index)]

    def nearest(self, source: str, name: str, *, centred: bool = True, control: str = "") -> Nearest:
        """Rows of the gallery nearest to each test video, as many as any protocol asks for."""
        return self._once(self._search, source, name, centred, control)

    def probe(self, source: str, name: str) -> Probe:
        """A linear probe of a feature, fitted on the gallery."""
        return self._once(self._fit, source, name)

    def _once(self, make: Callable, *given: Hashable) -> Any:
        """The result of `make` for these arguments, computed on first use."""
        key = make.__name__, *given
        if key not in self._kept:
            self._kept[key] = make(*given)
        return self._kept[key]

    def _extract(self, source: str, split: str, control: str, views: str) -> Extracted:
        with_features = views == self.config.views[0]
        given = self._once(self._source, source), self.clips(views), split, self._folder, control, with_features
        return extract.extract(*given)

    def _search(self, source: str, name: str, centred: bool, control: str) -> Nearest:
        gallery, test = self.gallery(source), self.test(source, control)
        count = max(self.usable((*self.config.neighbours, *self.config.recall_at)))
        return nearest(gallery.feature(name), test.feature(name), count, centred=centred)

    def _fit(self, source: str, name: str) -> Probe:
        gallery = self.gallery(source)
        return fit_probe(gallery.feature(name), gallery.labels)

    def _source(self, name: str) -> extract.Source:
        readouts = self.config.readouts
        if name in self.config.baselines:
            return extract.baseline(name, readouts)
        return extract.network(name, self.variables(name), self._encoder, readouts)
