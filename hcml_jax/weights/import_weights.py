"""Published weights become a folder that `init_from` of any config takes.

python -m hcml_jax.weights.import_weights r3d_18.pth --arch r3d_18 --out weights/r3d_18
"""

import argparse
import dataclasses
import functools
import hashlib
import json
import pathlib
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from hcml_jax.config import UserError, nearest
from hcml_jax.files import new_folder, replace_text
from hcml_jax.models.build import BACKBONES, Color, Normalisation, build_backbone
from hcml_jax.models.raft import RAFT, SIZES, SMALLEST
from hcml_jax.weights.published import Path, PublishedLayout, from_torch, published_layouts
from hcml_jax.weights.torch_files import WeightsError, read_tensors
from hcml_jax.weights.variables import VARIABLES, read_variables, save_variables

CLASSIFIER = ("classifier", "logits")
RAFTS = {f"raft_{size}": size for size in SIZES}
DESCRIPTION = "weights.json"


@dataclasses.dataclass(frozen=True)
class Imported:
    """What an import found.

    Attributes:
      variables: {"params": ..., "batch_stats": ...} of "backbone" and, where the file has one, "classifier"; or of
        "raft".
      source: the package whose tensor names the file has.
      mean, std: normalisation of the clips that it was trained on, in `[0, 1]`.
      caution: what its names leave open.
      classes: number of classes; 0: the file has no classifier.
      ignored: tensors that count training steps, which nothing uses.
      unused: tensors without a counterpart in the network.
      missing: variables without a tensor in the file; they are initialised as in a fresh network.
    """

    variables: dict[str, Any]
    source: str
    mean: Color
    std: Color
    caution: str
    classes: int
    ignored: tuple[str, ...]
    unused: tuple[str, ...]
    missing: tuple[str, ...]


def convert(
    tensors: Mapping[str, np.ndarray],
    arch: str,
    allow_unused: bool = False,
    allow_missing: bool = False,
    **options: Any,
) -> Imported:
    """Convert published tensors, by name, to variables of the backbone (or RAFT) `arch`; `options` are options of its
    module that differ from the published network's.

    Raises:
      WeightsError: if the tensors are another network's: no name matches, or a shape differs; if some have no
        counterpart (unless `allow_unused`) or some are missing (unless `allow_missing`).
    """
    known = published_layouts(arch)
    if not known:
        raise WeightsError(f"no weights of {arch!r} are published: there are no names to go by")
    run = functools.partial(_run, arch, options)
    shapes, channels = _abstract(run)
    layout = max(known, key=lambda layout: sum(layout.name(path[1:]) in tensors for path in shapes))
    names = {path: layout.name(path[1:]) for path in shapes}
    if tensors.keys().isdisjoint(names.values()):
        raise WeightsError(
            f"none of the tensors has a name of {arch}'s, such as {next(iter(names.values()))!r}; theirs are "
            f"{_some(tensors)}"
        )
    classifier = _classifier_shapes(tensors, layout, channels)
    shapes, names = shapes | classifier, names | {p: layout.name(p[1:]) for p in classifier}
    arrays = {
        path: _converted(tensors[name], name, path, shapes[path], arch)
        for path, name in names.items()
        if name in tensors
    }
    missing = {path: name for path, name in names.items() if path not in arrays}
    wanted = set(names.values())
    rest = [name for name in tensors if name not in wanted]
    ignored = [name for name in rest if name.endswith("num_batches_tracked")]
    unused = [name for name in rest if not name.endswith("num_batches_tracked")]
    _check_accounted(arch, [] if allow_unused else unused, [] if allow_missing else list(missing.values()), len(names))
    return Imported(
        variables=_nested(arrays | _initial(run, missing, shapes), "raft" if arch in RAFTS else "backbone"),
        source=layout.source,
        mean=layout.mean,
        std=layout.std,
        caution=layout.caution,
        classes=next((shape[-1] for shape in classifier.values()), 0),
        ignored=tuple(ignored),
        unused=tuple(unused),
        missing=tuple(missing.values()),
    )


def import_weights(
    source: pathlib.Path,
    arch: str,
    out: pathlib.Path,
    allow_unused: bool = False,
    allow_missing: bool = False,
    normalisation: Normalisation | None = None,
) -> Imported:
    """Read a weight file and write the folder `out`: the variables, and `weights.json`, which describes them.

    `normalisation` is the mean and deviation that normalised the file's clips; None: those published with its names.

    Raises:
      WeightsError: if the file is damaged or another network's, or holds tensors without a place (unless
        `allow_unused`) or lacks some (unless `allow_missing`).
      ConfigError: if `out` is there already.
    """
    imported = convert(read_tensors(source), arch, allow_unused, allow_missing)
    if normalisation:
        mean, std = normalisation
        imported = dataclasses.replace(imported, mean=mean, std=std, caution="")
    with new_folder(out) as partial:
        save_variables(partial / VARIABLES, imported.variables)
        described = dataclasses.asdict(imported) | {
            "arch": arch,
            "file": source.name,
            "sha256": hashlib.sha256(source.read_bytes()).hexdigest(),
        }
        del described["variables"]
        replace_text(partial / DESCRIPTION, json.dumps(described, indent=1) + "\n")
    return imported


def is_imported(folder: pathlib.Path) -> bool:
    """Whether `import_weights` wrote `folder`."""
    return (folder / DESCRIPTION).exists()


def read_imported(folder: pathlib.Path) -> tuple[dict[str, Any], Normalisation]:
    """The variables that `import_weights` wrote, and by which mean and deviation their clips were normalised.

    Raises:
      WeightsError: if they are damaged.
    """
    variables, path = read_variables(folder / VARIABLES), folder / DESCRIPTION
    try:
        described = json.loads(path.read_text())
        mean, std = ([float(described[name][color]) for color in range(3)] for name in ("mean", "std"))
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise WeightsError(f"{path} is damaged ({error!r}): import the weights again") from error
    return variables, (tuple(mean), tuple(std))


def _abstract(run: Callable) -> tuple[dict[Path, tuple[int, ...]], int]:
    """The shape of each of the network's variables, and the number of channels that a classifier would get."""
    output, variables = jax.eval_shape(run, jax.random.key(0))
    flat = flax.traverse_util.flatten_dict(variables)
    return {path: leaf.shape for path, leaf in flat.items()}, output.shape[-1]


def _run(arch: str, options: Mapping[str, Any], key: jax.Array) -> tuple[jax.Array, dict[str, Any]]:
    """The embedding (or flow) of a black clip, and the variables of a fresh network."""
    if arch in RAFTS:
        clip = jnp.zeros((1, 2, SMALLEST, SMALLEST, 3))
        return RAFT(RAFTS[arch], updates=1, **options).init_with_output(key, clip)
    clip = jnp.zeros((1, 16, 112, 112, 3))  # C3D's size; for the others any would do
    (embedding, _), variables = build_backbone(arch, **options).init_with_output(key, clip, False)
    return embedding, variables


def _classifier_shapes(
    tensors: Mapping[str, np.ndarray], layout: PublishedLayout, channels: int
) -> dict[Path, tuple[int, ...]]:
    """Shapes of the variables of the file's classifier; empty if it has none."""
    weight = tensors.get(layout.name((*CLASSIFIER, "kernel")))
    if weight is None:
        return {}
    classes = weight.shape[0] if weight.ndim else 0
    kernel, bias = (("params", *CLASSIFIER, leaf) for leaf in ("kernel", "bias"))
    return {kernel: (channels, classes), bias: (classes,)}


def _converted(tensor, name: str, path: Path, shape: tuple[int, ...], arch: str) -> np.ndarray:
    array = from_torch(tensor, path[1:], shape)
    if array is None:
        raise WeightsError(
            f"{name} is {list(tensor.shape)}; {arch} has {list(shape)} ([..., in, out]) there: it is another network's"
        )
    return array


def _initial(run: Callable, paths: Collection[Path], shapes: Mapping[Path, tuple[int, ...]]) -> dict[Path, np.ndarray]:
    """Values of a fresh network at these paths; zeros in the classifier."""
    if not paths:
        return {}
    _, variables = jax.jit(run)(jax.random.key(0))
    fresh = flax.traverse_util.flatten_dict(variables)
    return {path: np.asarray(fresh[path]) if path in fresh else np.zeros(shapes[path], np.float32) for path in paths}


def _nested(arrays: Mapping[Path, np.ndarray], network: str) -> dict[str, Any]:
    flat = {}
    for (collection, *path), array in arrays.items():
        owner = () if path[0] == CLASSIFIER[0] else (network,)
        flat[(collection, *owner, *path)] = array
    return flax.traverse_util.unflatten_dict(flat)


def _check_accounted(arch: str, unused: list[str], missing: list[str], wanted: int) -> None:
    problems = []
    if len(missing) > wanted / 2:
        problems.append(f"it looks like another network's than {arch}")
    if unused:
        problems.append(
            f"there is no place for {len(unused)} of its tensors (--allow-unused leaves them out): {_some(unused)}"
        )
    if missing:
        problems.append(
            f"it lacks {len(missing)} of {wanted} tensors (--allow-missing takes a fresh network's): {_some(missing)}"
        )
    if problems:
        raise WeightsError("; ".join(problems))


def _some(names: Collection[str], shown: int = 8) -> str:
    names = list(names)
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m hcml_jax.weights.import_weights")
    parser.add_argument("source", type=pathlib.Path, help=".pth, .pt, .pyth or .safetensors")
    parser.add_argument("--arch", required=True, help="the backbone, for example r3d_18, or raft_large")
    parser.add_argument("--out", type=pathlib.Path, required=True, help="the folder to write")
    parser.add_argument("--allow-unused", action="store_true", help="leave out tensors without a place")
    parser.add_argument("--allow-missing", action="store_true", help="take a fresh network's where one is missing")
    for name in ("mean", "std"):
        parser.add_argument(
            f"--{name}",
            type=float,
            nargs=3,
            help="of red, green and blue in [0, 1], by which the file's clips were normalised (both; default: as "
            "those of its source were)",
        )
    options = parser.parse_args(arguments)
    if bool(options.mean) != bool(options.std):
        parser.error("--mean and --std belong together")
    normalisation = (tuple(options.mean), tuple(options.std)) if options.mean else None
    try:
        if options.arch not in (known := [*BACKBONES, *RAFTS]):
            raise WeightsError(f"no backbone is called {options.arch!r}. {nearest(options.arch, known)}")
        imported = import_weights(
            options.source, options.arch, options.out, options.allow_unused, options.allow_missing, normalisation
        )
    except (UserError, OSError) as error:
        sys.exit(f"{type(error).__name__}: {options.source}: {error}")
    print(_summary(imported, options))


def _summary(imported: Imported, options: argparse.Namespace) -> str:
    count = sum(array.size for array in jax.tree.leaves(imported.variables["params"]))
    lines = [
        f"{options.out}: {options.arch} from {imported.source}'s names, {count:,} parameters, "
        f"{imported.classes or 'no'} classes",
        f"its clips were normalised by --config.method.backbone.mean='{_numbers(imported.mean)}' "
        f"--config.method.backbone.std='{_numbers(imported.std)}'",
    ]
    if imported.caution:
        lines.append(f"caution: {imported.caution}")
    for kind, names in (
        ("ignored (counters)", imported.ignored),
        ("unused", imported.unused),
        ("missing, taken fresh", imported.missing),
    ):
        if names:
            lines.append(f"{len(names)} {kind}: {_some(names, 3)}")
    return "\n".join(lines)


def _numbers(values: Sequence[float]) -> str:
    return "(" + ", ".join(f"{value:.6g}" for value in values) + ")"


if __name__ == "__main__":
    main()
