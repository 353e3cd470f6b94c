"""Probes, efficacy, families, the table of runs."""

import json

import numpy as np
import pytest

from hcml_jax.evaluation.compare import main, read_results, table
from hcml_jax.evaluation.scores import accuracy, efficacy, family_accuracies, linear_probe


def test_the_probe_separates_what_is_linearly_separable():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 150)
    features = np.eye(3)[labels] * 3 + rng.normal(size=(150, 3))
    fitted, predicted = linear_probe(features[:100], labels[:100], features[100:])
    assert accuracy(fitted, labels[:100]) > 0.9
    assert accuracy(predicted, labels[100:]) > 0.8


def test_efficacy_is_the_papers_ratio():
    assert efficacy(0.9, 0.6) == pytest.approx(3.0)
    assert efficacy(0.5, 0.5) is None


def test_families_are_scored_apart():
    classes, families = ("a", "b", "c"), {"a": "one", "b": "one", "c": "two"}
    labels, predicted = np.array([0, 1, 2, 2]), np.array([0, 0, 2, 2])
    found = family_accuracies(predicted, labels, classes, families)
    assert found == {"one": 0.5, "two": 1.0}


def test_runs_stand_side_by_side(tmp_path, capsys):
    for name, top1 in (("a", 0.5), ("b", 0.25)):
        (tmp_path / name).mkdir()
        results = {"top1": top1, "knn": {"level0": 0.1} if name == "a" else {}}
        (tmp_path / name / "results.json").write_text(json.dumps(results))
    main([str(tmp_path / "a"), str(tmp_path / "b")])
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["top1", "0.500", "0.250"]
    assert lines[2].split() == ["knn.level0", "0.100", "-"]
    assert table({}).strip() == ""
    with pytest.raises(FileNotFoundError, match="evaluate the run first"):
        read_results(tmp_path / "c")
