"""The report of a run: one HTML file with tables, pictures, config and versions, which needs nothing else."""

import base64
import datetime
import html
import importlib.metadata
import json
import pathlib
import platform
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hcml_jax.config import ConfigError
from hcml_jax.files import replace_text
from hcml_jax.training.workdir import Workdir
from hcml_jax.visualization.document import document

PACKAGES = ("hcml_jax", "jax", "flax", "optax", "numpy", "orbax-checkpoint")
# File in `figures/` -> what it shows.
PICTURES = {
    "curves.png": "Training",
    "flow.png": "Optical flow, in Baker's colours",
    "prediction.png": "Frames that the network makes of those before, the last one unseen; errors four times as large",
    "prediction.webp": "The same, moving: the frame before, the true one, the one that is made, both errors",
    "flow_images.png": "Frames, their flow in Baker's colours, and that flow turned by 180 degrees",
    "similarities.png": "How similar what is compared is; what belongs together lies on the diagonal",
    "highlights.png": "What the method picks out",
    "retrieval.png": "Nearest training clips",
    "retrieval.webp": "Nearest training clips, moving",
    "confusion.png": "Confusion",
    "activation.png": "Where the network looks: activation whatever the class, and Grad-CAM++ for the predicted one",
    "embedding.png": "Features in the plane (t-SNE)",
}
STYLE = """
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; border-bottom: 1px solid #d5dae0; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .2rem .7rem; text-align: right; white-space: nowrap; border-bottom: 1px solid #eceff2; }
th:first-child, td:first-child { text-align: left; } small { color: #66707b; }
pre { overflow-x: auto; background: #f5f7f9; padding: .8rem; }
figure { margin: 1.2rem 0; } figcaption { color: #66707b; }
"""


def write_page(workdir: pathlib.Path) -> pathlib.Path:
    """Writes `report.html` of what the folder holds: `results.json`, `figures/`, `run.json`.

    Raises:
      ConfigError: if the run has not been evaluated.
    """
    folder = Workdir(workdir)
    described = folder.read()
    if not folder.results.exists():
        raise ConfigError(f"{workdir} has no results.json: evaluate the run first (--mode=evaluate)")
    results = json.loads(folder.results.read_text())
    parts = [_head(workdir, described, results), *_tables(results), *_pictures(folder.figures)]
    parts += [_config(described["config"]), _versions()]
    replace_text(folder.report, document(f"hcml_jax: {workdir.name}", "\n".join(parts), STYLE))
    return folder.report


def _head(workdir: pathlib.Path, described: Mapping, results: Mapping) -> str:
    config = described["config"]
    method = config["method"]
    frames, height, width, _ = described["clip_shape"]
    facts = [f"method {method['name']}, backbone {method.get('backbone', {}).get('name', '')}"]
    facts.append(f"clips of {frames} frames of {height} x {width}, {len(described['classes'])} classes")
    facts.append("clips: " + ", ".join(f"{n} {name}" for name, n in described["clips"].items() if name != "digest"))
    if split := config["training"]["validation_split"]:
        facts.append(f"the best checkpoint and early ends: by split {split}")
    if selected := results.get("selected"):
        where = f"on split {selected['split']}" if "split" in selected else f"in {selected['chosen_in']}"
        facts.append(f"classifier chosen {where}: {selected['classifier']}")
    where = results.get("checkpoint", {})
    if "given" in where:
        facts.append(f"not trained here: what {where['given']} holds")
    elif where:
        facts.append("checkpoints: " + ", ".join(f"{name} at step {step}" for name, step in where.items()))
    if unfinished := results.get("unfinished"):
        facts.append("not evaluated yet: " + ", ".join(unfinished))
    items = "".join(f"<li>{html.escape(fact)}</li>" for fact in facts)
    return (
        f"<h1>{html.escape(workdir.name)}</h1><ul>{items}</ul><p><small>In brackets: 95% intervals over videos.</small>"
    )


class _Scores:
    """Cells of tables: a score with its interval, by its path in `results.json`."""

    def __init__(self, results: Mapping):
        self._results = results

    def get(self, *path: str) -> Any:
        """What lies there, or None."""
        return _down(self._results, path)

    def share(self, *path: str) -> str:
        """In per cent."""
        return self._cell(path, 100, ".1f")

    def number(self, *path: str) -> str:
        """As it is."""
        return self._cell(path, 1, ".3f")

    def _cell(self, path: Sequence[str], scale: float, form: str) -> str:
        value, ends = self.get(*path), self.get("intervals", *path)
        if not isinstance(value, int | float):
            return "-"
        cell = format(scale * value, form)
        if not ends:
            return cell
        low, high = ("?" if end is None else format(scale * end, form) for end in ends)
        return f"{cell} <small>({low} to {high})</small>"


def _tables(results: Mapping) -> Iterable[str]:
    scores = _Scores(results)
    kinds = ["top1", "top5", "mean_class_accuracy"]
    ways = {"": (), **{name: ("views", name) for name in results.get("views", {})}}
    ways |= {name: ("classifiers", name) for name in results.get("classifiers", {})}
    rows = [[name or "first view", *(scores.share(*path, kind) for kind in kinds)] for name, path in ways.items()]
    yield _table("Recognition", ["", "top-1", "top-5", "mean over classes"], rows, "top1" in results)
    yield from _feature_tables(results, scores)
    yield _retrieval(results, scores)
    yield _ways(results, scores)
    yield _controls(results, scores)
    yield _flow(scores)
    yield _prediction(scores)
    rows = [
        [f"{step}: {name}", scores.share("gains", step, name)]
        for step, gains in results.get("gains", {}).items()
        for name in gains
    ]
    yield _table("Classes that gain most from a level to the next (kNN, points)", ["", "gain"], rows, rows)
    paths = [("top1",)] if "top1" in results else []
    paths += [(kind, name) for kind in ("knn", "linear") for name in results.get(kind, {})]
    families = results.get("families", {})
    rows = [[_named(path), *(scores.share("families", family, *path) for family in families)] for path in paths]
    yield _table("Families", ["", *families], rows, families)
    of_class = results.get("classes", {}).get("knn", {})
    names = sorted({name for shares in of_class.values() for name in shares})
    rows = [[name, *(scores.share("classes", "knn", feature, name) for feature in of_class)] for name in names]
    yield _table("Classes (kNN)", ["", *of_class], rows, rows)
    cost = results.get("cost", {})
    rows = [[name.replace("_", " "), _plain(value)] for name, value in cost.items() if not isinstance(value, Mapping)]
    rows += [[f"GFLOPs, {name}", _plain(value)] for name, value in cost.get("gflops", {}).items()]
    yield _table("Cost", ["", ""], rows, rows)


def _feature_tables(results: Mapping, scores: _Scores) -> Iterable[str]:
    beside = [name for name in ("untrained", "random", "few_labels") if name in results]
    columns = [(*where, kind) for kind in ("knn", "linear") for where in ((), *((b,) for b in beside))]
    heads = [
        "",
        *(" ".join([*path[:-1], {"knn": "kNN"}.get(path[-1], path[-1])]).replace("_", " ") for path in columns),
    ]
    features = dict.fromkeys([*results.get("knn", {}), *results.get("linear", {})])
    rows = [[name, *(scores.share(*path, name) for path in columns)] for name in features]
    for grid in results.get("readouts", {}):
        rows.append([grid, *(scores.share(*path[:-1], "readouts", grid, path[-1]) for path in columns)])
    yield _table("Features", heads, rows, rows)
    baseline = results.get("baseline", {})
    rows = [
        [name, *(scores.share("baseline", kind, name) for kind in ("knn", "linear"))]
        for name in dict.fromkeys([*baseline.get("knn", {}), *baseline.get("linear", {})])
    ]
    for grid in baseline.get("readouts", {}):
        rows.append([grid, *(scores.share("baseline", "readouts", grid, kind) for kind in ("knn", "linear"))])
    yield _table("Without a network", ["", "kNN", "linear"], rows, rows)


def _retrieval(results: Mapping, scores: _Scores) -> str:
    counts = next(iter(results.get("retrieval", {}).values()), {})
    paths = []
    for where in ((), ("untrained",), ("random",), ("baseline",)):
        found = _down(results, where) or {}
        paths += [(*where, "retrieval", name) for name in found.get("retrieval", {})]
        grids = [grid for grid, kinds in found.get("readouts", {}).items() if "retrieval" in kinds]
        paths += [(*where, "readouts", grid, "retrieval") for grid in grids]
    rows = [[_named(path), *(scores.share(*path, k) for k in counts)] for path in paths]
    return _table("Retrieval", ["", *(f"R@{k}" for k in counts)], rows, counts)


def _ways(results: Mapping, scores: _Scores) -> str:
    """A table of other kinds of kNN (weighted votes, not centred, other k), and of efficacy."""
    ways = {name: (name,) for name in ("knn", "knn_weighted", "knn_uncentred") if name in results}
    ways |= {f"knn, k {k}": ("knn_by_k", k) for k in results.get("knn_by_k", {})}
    features = list(results.get("knn", {}))
    rows = [[name.replace("_", " "), *(scores.share(*path, f) for f in features)] for name, path in ways.items()]
    counts = next(iter(results.get("retrieval_uncentred", {}).values()), {})
    rows += [[f"R@{k}, uncentred", *(scores.share("retrieval_uncentred", f, k) for f in features)] for k in counts]
    if "efficacy" in results:
        rows.append(["efficacy", *(scores.number("efficacy", feature) for feature in features)])
    return _table("Other ways to score features", ["", *features], rows, features and rows)


def _controls(results: Mapping, scores: _Scores) -> str:
    controls = {"as they are": (), **{name: ("controls", name) for name in results.get("controls", {})}}
    paths = [("top1",)] if "top1" in results else []
    for where in ((), ("baseline",)):
        found = _down(results, where) or {}
        paths += [(*where, kind, name) for kind in ("knn", "linear") for name in found.get(kind, {})]
        paths += [(*where, "readouts", grid, kind) for grid in found.get("readouts", {}) for kind in ("knn", "linear")]
    rows = [[_named(path), *(scores.share(*where, *path) for where in controls.values())] for path in paths]
    heads = ["clips", *(name.replace("_", " ") for name in controls)]
    return _table("How much of a score is motion", heads, rows, len(controls) > 1)


def _flow(scores: _Scores) -> str:
    flow = scores.get("flow") or {}
    kinds = {"epe_by_level": "error, px", "readout_epe": "error of a linear read-out, px"}
    kinds |= {"epe_zero_by_level": "error of zero flow, px"}
    paths = {(kind,): title for kind, title in kinds.items() if kind in flow}
    paths |= {(kind, whose): f"{kind}, {whose}" for kind in ("l1", "psnr", "ssim") for whose in flow.get(kind, {})}
    levels = list(dict.fromkeys(level for path in paths for level in _down(flow, path)))
    rows = [[title, *(scores.number("flow", *path, level) for level in levels)] for path, title in paths.items()]
    return _table("Flow", ["", *levels], rows, rows)


def _prediction(scores: _Scores) -> str:
    kinds = ("l1", "psnr", "ssim")
    rows = [
        [f"{name}, of frames {part}", *(scores.number("prediction", part, kind, name) for kind in kinds)]
        for part, found in (scores.get("prediction") or {}).items()
        for name in found["l1"]
    ]
    return _table("Predicted frames", ["", *kinds], rows, rows)


def _named(path: Sequence[str]) -> str:
    """ "kNN level0" of ("knn", "level0")."""
    names = {"knn": "kNN", "top1": "top-1", "readouts": "", "baseline": "", "retrieval": ""}
    return " ".join(filter(None, (names.get(name, name.replace("_", " ")) for name in path)))


def _table(title: str, heads: Sequence[str], rows: Sequence[Sequence[str]], shown: Any) -> str:
    """An HTML table; the first cells are names (escaped), the others HTML from this module. "" unless `shown`."""
    if not shown:
        return ""
    head = "".join(f"<th>{html.escape(name)}</th>" for name in heads)
    body = "".join(
        f"<tr><td>{html.escape(str(name))}</td>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"
        for name, *cells in rows
    )
    return f"<h2>{title}</h2><div class=wide><table><tr>{head}</tr>{body}</table></div>"


def _pictures(folder: pathlib.Path) -> Iterable[str]:
    for name, title in PICTURES.items():
        path = folder / name
        if path.exists():
            data = base64.b64encode(path.read_bytes()).decode()
            source = f"data:image/{path.suffix[1:]};base64,{data}"
            yield f'<h2>{title}</h2><figure><img src="{source}" alt="{title}"></figure>'


def _config(config: Mapping) -> str:
    text = html.escape(json.dumps(config, indent=1))
    return f"<h2>Config</h2><details><summary>all fields</summary><pre>{text}</pre></details>"


def _versions() -> str:
    versions = {name: _version(name) for name in PACKAGES} | {"Python": platform.python_version()}
    line = ", ".join(f"{name} {version}" for name, version in versions.items())
    made = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    return f"<h2>Versions</h2><p>{html.escape(line)}. This page was made {made}.</p>"


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:  # a checkout need not be installed
        return "not installed"


def _plain(value: Any) -> str:
    return (
        f"{value:,.3g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else html.escape(value)
    )


def _down(tree: Any, path: Sequence[str]) -> Any:
    for name in path:
        tree = tree.get(name) if isinstance(tree, Mapping) else None
    return tree
