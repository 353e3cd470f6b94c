"""Starting a run from given variables: published weights, or another run's."""

import dataclasses
import pathlib
from collections.abc import Mapping

import flax.traverse_util
import jax
import numpy as np

from hcml_jax.config import ConfigError, UserError, nearest
from hcml_jax.methods.base import Variables
from hcml_jax.models import Normalisation
from hcml_jax.weights.import_weights import is_imported, read_imported

Path = tuple[str, ...]  # (collection, module, ..., array)


@dataclasses.dataclass(frozen=True)
class InitFrom:
    """Which variables a run starts from.

    Attributes:
      path: a folder that `import_weights` wrote, a run's workdir (its last checkpoint) or its export; "": none.
      prefixes: what to take, for example ("backbone",) or ("backbone/stem", "backbone/res2"); (): all there is.
    """

    path: str = ""
    prefixes: tuple[str, ...] = ()

    def __post_init__(self):
        if self.prefixes and not self.path:
            raise ConfigError(f"prefixes {self.prefixes} choose from a folder: name it in path")


class Start:
    """The variables of an `InitFrom`, held against those of a run.

    A part of the network, such as "backbone/res2", "backbone/level0" or "classifier/logits", is taken whole or, where
    the folder has nothing of it, starts fresh.
    """

    def __init__(self, config: InitFrom, variables: Variables, normalisation: Normalisation):
        """Reads the folder and checks it.

        Args:
          config: what to take.
          variables: the run's, which may be abstract.
          normalisation: mean and deviation by which the run normalises clips.

        Raises:
          ConfigError: if it does not fit: it has arrays for which the run has no place, lacks some of a part, or has
            some of another shape; or if the folder holds no variables.
        """
        self._path = config.path
        found, self._their_normalisation = _read(pathlib.Path(config.path))
        self._our_normalisation = normalisation
        self._taken = _under(found, config.prefixes, config.path)
        self._check(flax.traverse_util.flatten_dict(variables))

    def __call__(self, variables: Variables) -> Variables:
        """The run's fresh variables with what was taken in place; each array stays where it lies."""
        flat = flax.traverse_util.flatten_dict(variables)
        for path, array in self._taken.items():
            old = flat[path]
            flat[path] = jax.make_array_from_callback(
                old.shape, old.sharding, lambda index, array=array: array[index]
            )
        return flax.traverse_util.unflatten_dict(flat)

    def _check(self, here: Mapping[Path, jax.Array]) -> None:
        taken = {_part(path) for path in self._taken}
        lacking = [path for path in here if path not in self._taken and _part(path) in taken]
        unknown = [path for path in self._taken if path not in here]
        wrong = [p for p, x in self._taken.items() if p in here and x.shape != here[p].shape]
        remedy = "name what to take in config.init_from.prefixes, for example ('backbone',)"
        if unknown:
            raise self._error(
                f"holds {_some(unknown)}, for which this network has no place: {remedy}"
            )
        if wrong:
            (_, *name), there = wrong[0], list(self._taken[wrong[0]].shape)
            what = "a classifier of other classes" if name[0] == "classifier" else "other shapes"
            raise self._error(
                f"has {what}: {'/'.join(name)} is {there} there, {list(here[wrong[0]].shape)} here: {remedy}"
            )
        if lacking:
            raise self._error(
                f"lacks {_some(lacking)} of this network: it is another backbone's, or config.init_from.prefixes "
                "name less than a part, which is taken whole"
            )
        self.fresh = tuple(sorted({_part(path) for path in here} - taken))

    def __str__(self) -> str:
        fresh = f"; fresh: {', '.join(self.fresh)}" if self.fresh else ""
        return f"starting from {self._path}: {len(self._taken)} arrays{fresh}{self._caution()}"

    def _caution(self) -> str:
        """Of clips that are normalised otherwise than those that the backbone comes from."""
        has_backbone = any(path[1] == "backbone" for path in self._taken)
        theirs, ours = self._their_normalisation, self._our_normalisation
        if not has_backbone or np.allclose(theirs, ours, rtol=1e-3):
            return ""
        return (
            f"; caution: its clips were normalised by mean {theirs[0]} and std {theirs[1]}, this run's by {ours[0]} "
            f"and {ours[1]} (config.method.backbone.mean and std)"
        )

    def _error(self, message: str) -> ConfigError:
        return ConfigError(f"config.init_from.path {self._path} {message}")


def _read(folder: pathlib.Path) -> tuple[dict[Path, np.ndarray], Normalisation]:
    """The folder's variables, and by which mean and deviation their clips were normalised."""
    from hcml_jax.inference import load

    try:
        if is_imported(folder):
            found, normalisation = read_imported(folder)
        else:
            model = load(folder)
            found, normalisation = model.variables, model.method.normalisation
    except UserError as error:
        raise ConfigError(f"config.init_from.path: {error}") from error
    variables = flax.traverse_util.flatten_dict(found)
    return {path: np.asarray(variables[path]) for path in sorted(variables)}, normalisation


def _under(
    found: Mapping[Path, np.ndarray], prefixes: tuple[str, ...], folder: str
) -> dict[Path, np.ndarray]:
    names = {path: "/".join(path[1:]) for path in found}
    for prefix in prefixes:
        if not any(f"{name}/".startswith(f"{prefix}/") for name in names.values()):
            parts = sorted({_part(path) for path in found} | {path[1] for path in found})
            raise ConfigError(
                f"config.init_from.prefixes: {folder} holds nothing under {prefix!r}. {nearest(prefix, parts)}"
            )
    return {
        path: array
        for path, array in found.items()
        if not prefixes or any(f"{names[path]}/".startswith(f"{p}/") for p in prefixes)
    }


def _part(path: Path) -> str:
    return "/".join(path[1:3])


def _some(paths: list[Path], shown: int = 3) -> str:
    more = f" and {len(paths) - shown} more" if len(paths) > shown else ""
    return ", ".join("/".join(path[1:]) for path in paths[:shown]) + more
