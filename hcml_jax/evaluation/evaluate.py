"""The whole evaluation: every protocol that is asked for, in order, into `results.json`."""

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from hcml_jax import cluster
from hcml_jax.evaluation.config import PROTOCOLS
from hcml_jax.evaluation.intervals import PerVideo, intervals
from hcml_jax.evaluation.protocols import controls, cost, flow, linear, neighbours, prediction, recognition, retrieval
from hcml_jax.evaluation.protocols.hits import merge
from hcml_jax.evaluation.subject import Subject
from hcml_jax.files import new_file, replace_text

PARTS: dict[str, Callable[[Subject], Iterator]] = {
    "recognition": recognition.parts,
    "flow": flow.parts,
    "prediction": prediction.parts,
    "neighbours": neighbours.parts,
    "linear": linear.parts,
    "retrieval": retrieval.parts,
    "controls": controls.parts,
    "cost": cost.parts,
}
DETAILS = ("classes", "gains")  # left out of `per_video.npz`: "knn" already has them


def evaluate(subject: Subject) -> dict[str, Any]:
    """Run every protocol; `results.json` is rewritten after each part.

    Until all parts are done, its "unfinished" names the remaining ones. "intervals" holds the 95% interval of each
    score at the same path; `per_video.npz` holds each video's contribution to a score, by its name, for `compare`.

    Returns:
      the contents of `results.json`.
    """
    parts = []
    for protocol in subject.config.protocols:
        own = list(PARTS[protocol](subject))
        if not own:
            cluster.say(f"[evaluate] {protocol} is left out: {PROTOCOLS[protocol].lacking}")
        parts += own
    rows = np.array(sorted(subject.clips().rows(subject.reported)))
    results, scores = {}, {}
    _write(subject, results, scores, rows, [name for name, _ in parts])
    for done, (name, part) in enumerate(parts, 1):
        cluster.say(f"[evaluate] {name}")
        found = flatten_dict(part())
        measured = {path: leaf.over(rows) for path, leaf in found.items() if isinstance(leaf, PerVideo)}
        scores |= measured
        ends = dict(zip(measured, intervals([*measured.values()]), strict=True))
        values = found | {path: score.score for path, score in measured.items()}
        merge(results, unflatten_dict(values))
        merge(results, {"intervals": unflatten_dict(ends)} if ends else {})
        _write(subject, results, scores, rows, [name for name, _ in parts[done:]])
    return results


def _write(subject: Subject, results: Mapping, scores: Mapping, rows: np.ndarray, unfinished: list[str]) -> None:
    """`results.json` and, at the end, `per_video.npz`."""
    if not cluster.is_first():
        return
    networks, data = subject.networks, subject.data
    found = dict(results) | {"checkpoint": {name: position.step for name, position in networks.positions.items()}}
    if networks.given:
        found["checkpoint"] = {"given": networks.given.path}
    if unfinished:
        found["unfinished"] = unfinished
        networks.workdir.per_video.unlink(missing_ok=True)
    else:
        shares = {".".join(path): score.shares for path, score in scores.items() if path[0] not in DETAILS}
        arrays = {name: values.astype(np.float32) for name, values in shares.items() if values is not None}
        names = np.array([data.video(row) for row in rows.tolist()])
        with new_file(networks.workdir.per_video) as partial, partial.open("wb") as file:
            np.savez_compressed(file, **{"video": names, **arrays})
    replace_text(networks.workdir.results, json.dumps(found, indent=1) + "\n")
