"""Starting a run from given variables: published weights, or another run's."""

import dataclasses
import functools
from collections.abc import Callable, Mapping

import flax.traverse_util
import jax
import numpy as np

from hcml_jax.config import ConfigError, UserError, nearest
from hcml_jax.inference import load
from hcml_jax.methods import build_method
from hcml_jax.methods.base import Method, Variables, under
from hcml_jax.models import Normalisation
from hcml_jax.training.mesh import Layout, make_mesh
from hcml_jax.training.restore import learnt
from hcml_jax.training.step import abstract_variables
from hcml_jax.training.workdir import Workdir
from hcml_jax.weights.import_weights import is_imported, read_imported
from hcml_jax.weights.shipped import folder_of

Path = tuple[str, ...]  # (collection, module, ..., array)


@dataclasses.dataclass(frozen=True)
class InitFrom:
    """Which variables a run starts from.

    Attributes:
      path: a folder that `import_weights` wrote, a run's workdir or its export; "sprites", the weights that come with
        the package (see `hcml_jax.inference.load`); "": none.
      prefixes: what to take, for example ("backbone",) or ("backbone/stem", "backbone/res2"); (): all there is.
      stage: of a run's workdir: the end of this stage, for example "level2"; "": its last checkpoint.
    """

    path: str = ""
    prefixes: tuple[str, ...] = ()
    stage: str = ""

    def __post_init__(self):
        if (self.prefixes or self.stage) and not self.path:
            raise ConfigError(
                f"prefixes {self.prefixes} and stage {self.stage!r} choose from a folder: name it in path"
            )


@dataclasses.dataclass(frozen=True)
class Start:
    """The variables that an `InitFrom` loads, checked against those of a run; result of `read_start`.

    Attributes:
      path: their source.
      taken: arrays by path.
      fresh: parts of the run's network that the folder lacks.
      caution: warning if clips are normalised differently from those the backbone was trained on; "": they are not.
      recognises: whether a trained classifier is among them.
      classes: names of its classes; (): unknown.
      chosen: the one of several classifiers that its run chose; "": none.
    """

    path: str
    taken: Mapping[Path, np.ndarray]
    fresh: tuple[str, ...]
    caution: str
    recognises: bool
    classes: tuple[str, ...] = ()
    chosen: str = ""

    @property
    def modules(self) -> frozenset[str]:
        """The top-level modules of which something was taken."""
        return frozenset(path[1] for path in self.taken)

    def __call__(self, variables: Variables) -> Variables:
        """Replace the run's fresh variables by those taken; each array keeps its sharding."""
        flat = flax.traverse_util.flatten_dict(variables)
        for path, array in self.taken.items():
            old = flat[path]
            flat[path] = jax.make_array_from_callback(old.shape, old.sharding, lambda index, array=array: array[index])
        return flax.traverse_util.unflatten_dict(flat)

    def __str__(self) -> str:
        fresh = f"; fresh: {', '.join(self.fresh)}" if self.fresh else ""
        return f"starting from {self.path}: {len(self.taken)} arrays{fresh}{self.caution}"


def known_classes(config: InitFrom) -> tuple[str, ...]:
    """The classes of a run or its export, if all of it is taken; () if only a part is, or no classes are known."""
    folder = Workdir(folder_of(config.path))
    if not config.path or config.prefixes or not folder.claimed:
        return ()
    described = folder.read()
    method = build_method(described["config"]["method"], len(described["classes"]))
    return tuple(described["classes"]) if method.classifies else ()


def start_of(config: InitFrom, method: Method, clip_shape: tuple[int, ...]) -> Callable[[], Start] | None:
    """A cached function that reads what a run of `method` starts from; None: it starts from fresh variables."""

    @functools.cache
    def read() -> Start:
        variables = abstract_variables(method, clip_shape, Layout(make_mesh()))
        return read_start(config, variables, method.normalisation, method.deployed)

    return read if config.path else None


def read_start(
    config: InitFrom,
    variables: Variables,
    normalisation: Normalisation,
    deployed: tuple[str, ...] = ("backbone", "classifier"),
) -> Start:
    """Reads the folder and checks that it fits a run.

    A part of the network, such as "backbone/res2", "backbone/level0" or "classifier/logits", is taken whole or, if the
    folder lacks it, initialised afresh. Collections that only serve training, such as queues, are not taken.

    Args:
      config: what to take.
      variables: the run's, which may be abstract.
      normalisation: mean and deviation by which the run normalises clips.
      deployed: see `Method`.

    Raises:
      ConfigError: if it does not fit: it has arrays that the run does not, lacks some arrays of a part, or has some of
        another shape; or if the folder holds no variables.
    """
    found, theirs, trained, classes, chosen = _read(config)
    taken = _under(found, config.prefixes, config.path)
    here = flax.traverse_util.flatten_dict(learnt(variables))
    _check_fits(config.path, taken, here)
    fresh = {_part(path) for path in here} - {_part(path) for path in taken}
    has_backbone = any(path[1] == "backbone" for path in taken)
    caution = ""
    if has_backbone and not np.allclose(theirs, normalisation, rtol=1e-3):
        (mean, std), (our_mean, our_std) = theirs, normalisation
        caution = (
            f"; caution: its clips were normalised by mean {mean} and std {std}, this run's by {our_mean} and "
            f"{our_std} (config.method.backbone.mean and std)"
        )
    recognises = trained and set(deployed) <= {path[1] for path in taken}
    return Start(config.path, taken, tuple(sorted(fresh)), caution, recognises, classes, chosen)


def _check_fits(folder: str, taken: Mapping[Path, np.ndarray], here: Mapping[Path, jax.Array]) -> None:
    parts = {_part(path) for path in taken}
    unknown = [path for path in taken if path not in here]
    wrong = [p for p, x in taken.items() if p in here and x.shape != here[p].shape]
    lacking = [path for path in here if path not in taken and _part(path) in parts]
    remedy = "name what to take in config.init_from.prefixes, for example ('backbone',)"
    problem = ""
    if unknown:
        problem = f"holds {_some(unknown)}, for which this network has no place: {remedy}"
    elif wrong:
        (_, *name), there = wrong[0], list(taken[wrong[0]].shape)
        what = "a classifier of other classes" if name[0] == "classifier" else "other shapes"
        ours = list(here[wrong[0]].shape)
        problem = f"has {what}: {'/'.join(name)} is {there} there, {ours} here: {remedy}"
    elif lacking:
        problem = (
            f"lacks {_some(lacking)} of this network: it is another backbone's, or config.init_from.prefixes name less "
            "than a part, which is taken whole"
        )
    if problem:
        raise ConfigError(f"config.init_from.path {folder} {problem}")


def _read(config: InitFrom) -> tuple[dict[Path, np.ndarray], Normalisation, bool, tuple[str, ...], str]:
    """The folder's learnt variables, the mean and deviation that normalised its clips, whether its classifier is
    trained, its classes, if known, and the chosen one of several classifiers."""
    folder = folder_of(config.path)
    try:
        if is_imported(folder):
            if config.stage:
                raise ConfigError(f"{folder} holds imported weights, which have no stages")
            (found, normalisation), recognises, classes, chosen = read_imported(folder), True, (), ""
        else:
            model = load(folder, config.stage)
            found, normalisation = learnt(model.variables), model.method.normalisation
            recognises, classes, chosen = model.trained, model.classes, model.chosen
    except UserError as error:
        raise ConfigError(f"config.init_from.path: {error}") from error
    variables = flax.traverse_util.flatten_dict(found)
    arrays = {path: np.asarray(variables[path]) for path in sorted(variables)}
    return arrays, normalisation, recognises, classes, chosen


def _under(found: Mapping[Path, np.ndarray], prefixes: tuple[str, ...], folder: str) -> dict[Path, np.ndarray]:
    for prefix in prefixes:
        if not any(under(path[1:], prefix) for path in found):
            parts = sorted({_part(path) for path in found} | {path[1] for path in found})
            raise ConfigError(
                f"config.init_from.prefixes: {folder} holds nothing under {prefix!r}. {nearest(prefix, parts)}"
            )
    return {path: array for path, array in found.items() if not prefixes or under(path[1:], *prefixes)}


def _part(path: Path) -> str:
    return "/".join(path[1:3])


def _some(paths: list[Path], shown: int = 3) -> str:
    more = f" and {len(paths) - shown} more" if len(paths) > shown else ""
    return ", ".join("/".join(path[1:]) for path in paths[:shown]) + more
