"""Trained networks for notebooks and programs: `load(workdir)`; and their export, without training-only variables."""

import functools
import json
import pathlib
from collections.abc import Sequence

import flax.traverse_util
import jax
import numpy as np

from hcml_jax.artifact import probabilities, save_artifact
from hcml_jax.config import ConfigError
from hcml_jax.files import new_folder, replace_text
from hcml_jax.methods import build_method
from hcml_jax.methods.base import Encoded, Method, Variables
from hcml_jax.training.checkpoints import CheckpointError, Position
from hcml_jax.training.mesh import Layout, make_mesh
from hcml_jax.training.restore import end_of, learnt, recognises, restore
from hcml_jax.training.step import abstract_variables
from hcml_jax.training.workdir import Workdir
from hcml_jax.weights.export_weights import save_tensors
from hcml_jax.weights.shipped import folder_of
from hcml_jax.weights.variables import VARIABLES, read_variables, save_variables


class Model:
    """A trained network with jitted functions of clips `[B, T, H, W, 3]`, uint8 or float `[0, 1]`.

    Attributes:
      method, variables: the method and its variables.
      classes: class names in the order of the scores; empty if it was trained without classes.
      clip_shape: `(T, H, W, 3)`, the clips it was trained on.
      trained: whether its classifier has been trained.
      chosen: which of a method's several `classifiers` predicts; "": it has one, or none has been chosen.
      recognises: whether it has a classifier that has been trained, and chosen if there are several.
    """

    def __init__(
        self,
        method: Method,
        variables: Variables,
        classes: Sequence[str],
        clip_shape: tuple[int, int, int, int],
        trained: bool,
        chosen: str = "",
    ):
        self.method, self.variables = method, variables
        self.classes, self.clip_shape = tuple(classes), clip_shape
        self.trained, self.chosen = trained, chosen
        self.recognises = trained and bool(chosen or not method.classifiers)
        self._encode = jax.jit(method.encode)
        # What is not asked for is not computed.
        self._part = jax.jit(lambda name, *given: getattr(method.encode(*given), name), static_argnums=0)

    def encode(self, clips: jax.Array) -> Encoded:
        """Features, maps, flow and class scores of one forward pass."""
        return self._encode(self.variables, _checked(clips))

    def features(self, clips: jax.Array) -> dict[str, jax.Array]:
        """Pooled features: "level0", ..., "backbone" -> `[B, C]`."""
        return self._part("features", self.variables, _checked(clips))

    def predict(self, clips: jax.Array) -> jax.Array:
        """Class probabilities `[B, classes]`.

        Raises:
          ConfigError: if the network has no trained classifier.
        """
        if not self.recognises:
            raise ConfigError(
                "this network has no classifier: its run had no labels, has not come to that stage, or trained several "
                "side by side, of which --mode=evaluate with the protocol 'recognition' chooses one"
            )
        return probabilities(self._part("logits", self.variables, _checked(clips)), self.method, self.chosen)

    @property
    def gives_flow(self) -> bool:
        """Whether it has a head for flow."""
        clips = jax.ShapeDtypeStruct((1, *self.clip_shape), np.uint8)
        return bool(jax.eval_shape(self.method.encode, self.variables, clips).flow)

    def flow(self, clips: jax.Array) -> dict[str, jax.Array]:
        """Optical flow of the levels learnt by reconstruction: name -> `[B, T' - 1, H, W, 2]`, pixels.

        Raises:
          ConfigError: if it has no head for flow.
        """
        flow = self._part("flow", self.variables, _checked(clips))
        if not flow:
            raise ConfigError("this network gives no flow: its method learns none, or it is the export of a recogniser")
        return flow

    def next_frames(self, clips: jax.Array) -> jax.Array:
        """The frame that follows each frame, float32 `[B, T, H, W, 3]`, in `[0, 1]` or little beyond.

        Raises:
          ConfigError: if its method makes no frames.
        """
        made = self._predict_frames(self.variables, _checked(clips))
        if made is None:
            raise ConfigError("this network makes no frames: its method does not")
        return made

    @functools.cached_property
    def _predict_frames(self):
        return jax.jit(self.method.next_frames)


def load(workdir: str | pathlib.Path, stage: str = "") -> Model:
    """Loads a run's workdir, the folder that `--mode=export` wrote, or weights that come with the package.

    Args:
      workdir: the folder; or "sprites", HCML's levels learnt from Motion Sprites alone, for clips of 16 frames of
        112 x 112 pixels (`hcml_jax/weights/sprites/README.md`).
      stage: of a run: at the end of this stage; "": at its last checkpoint.

    Raises:
      ConfigError: if the folder holds neither, the stage has not ended, or a stage is given for an export, which has
        none.
      CheckpointError: if the run has no checkpoint yet, or one of another model.
      WeightsError: if an export is damaged.
    """
    folder = folder_of(workdir)
    if (folder / "variables").exists():
        raise ConfigError(f"{folder} is an export of an older program: export its run again")
    if stage and (folder / VARIABLES).exists():
        raise ConfigError(f"{folder} is an export, which has no stages: {stage!r} cannot be chosen")
    described = Workdir(folder).read()
    method = build_method(described["config"]["method"], len(described["classes"]))
    abstract = abstract_variables(method, described["clip_shape"], Layout(make_mesh()))
    if (folder / VARIABLES).exists():
        variables = _exported(folder / VARIABLES, learnt(abstract, method.deployed))
        trained, chosen = described["recognises"], described.get("classifier", "")
    else:
        position = end_of(stage, folder)
        variables = restore(folder, position, abstract)
        trained, chosen = recognises(method, position), _selected(Workdir(folder), position)
    shape, classes = tuple(described["clip_shape"]), described["classes"] if method.classifies else ()
    return Model(method, variables, classes, shape, trained, chosen)


def _exported(path: pathlib.Path, abstract: Variables) -> Variables:
    """The variables of an export, with the shardings of `abstract`."""
    found, wanted = (flax.traverse_util.flatten_dict(tree, sep="/") for tree in (read_variables(path), abstract))
    names = sorted({*found, *wanted})
    differ = [name for name in names if np.shape(found.get(name)) != np.shape(wanted.get(name))]
    if differ:
        raise CheckpointError(f"{path} holds another network than its run.json tells of: {differ[0]} differs")
    placed = {name: _placed(array, wanted[name].sharding) for name, array in found.items()}
    return flax.traverse_util.unflatten_dict(placed, sep="/")


def _placed(array: np.ndarray, sharding: jax.sharding.Sharding) -> jax.Array:
    """Place an array that every process has read, without waiting for the others (`device_put` would wait)."""
    return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])


def _selected(workdir: Workdir, position: Position) -> str:
    """The classifier that the evaluation at this position chose; "" if there was none."""
    if not workdir.results.exists():
        return ""
    results = json.loads(workdir.results.read_text())
    here = results["checkpoint"].get("last") == position.step
    return results.get("selected", {}).get("classifier", "") if here else ""


def export(workdir: pathlib.Path) -> pathlib.Path:
    """Write `<workdir>/export`: the network without training-only variables, for `load`; `model.jaxexport`, for jax
    alone (see `artifact`); and `backbone.safetensors`, its backbone and classifier for PyTorch, under the names of the
    package that publishes such a network.

    Raises:
      ConfigError: if there is an export already.
    """
    folder = workdir / "export"
    with new_folder(folder) as partial:
        model = load(workdir)
        kept = learnt(model.variables, model.method.deployed)
        save_variables(partial / VARIABLES, kept)
        tensors = partial / "backbone.safetensors"
        save_tensors(tensors, model.method.architecture, kept)
        described = Workdir(workdir).read() | {"recognises": model.trained, "classifier": model.chosen}
        classes = model.classes if model.recognises else ()
        save_artifact(partial, model.method, kept, classes, described, model.chosen)
        replace_text(partial / "run.json", json.dumps(described, indent=1) + "\n")
    return folder


def _checked(clips) -> np.ndarray | jax.Array:
    shape = np.shape(clips)
    if len(shape) != 5 or shape[-1] != 3:
        raise ValueError(f"clips must be [B, T, H, W, 3], not {list(shape)}")
    return clips if isinstance(clips, jax.Array) else np.asarray(clips)
