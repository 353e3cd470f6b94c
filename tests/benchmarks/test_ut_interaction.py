"""One sequence left out: what its clips are classified by, and what it is called."""

import importlib
import pathlib

import numpy as np
import pytest

from hcml_jax.experiment import complete
from hcml_jax.methods import build_method

BENCHMARKS = pathlib.Path(__file__).parents[2] / "benchmarks"


class Extracted:
    """Two features of six clips, a pair of each of three sequences."""

    names = ("level0", "level0/3x3")
    labels = np.array([0, 1, 0, 1, 0, 1])

    def feature(self, name):
        """Of its mean, a number for each sequence, which tells no class; at 3x3, the class itself."""
        sequence, one = np.repeat(np.eye(3), 2, 0), np.eye(2)[self.labels]
        return np.float32(sequence if name == "level0" else one)


class Subject:
    """Whatever is asked for."""

    def extracted(self, source, split, control=""):
        return Extracted()


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    module = importlib.import_module("ut_interaction")
    monkeypatch.setattr(module, "NEIGHBOURS", 1)
    return module


def test_no_clip_is_classified_by_its_own_sequence(benchmark, monkeypatch):
    seen = []

    def spy(gallery, labels, queries):
        seen.append((len(gallery), len(queries), np.abs(gallery @ queries.T).max()))
        return labels[:1].repeat(len(queries))

    monkeypatch.setattr(benchmark, "KINDS", {"knn": spy})
    benchmark.scores_of(Subject(), np.array([1, 1, 2, 2, 3, 3]))
    of_means = seen[:3]
    assert of_means == [(4, 2, 0.0)] * 3


def test_scores_are_of_every_clip_by_source_feature_grid_and_control(benchmark):
    scores = benchmark.scores_of(Subject(), np.array([1, 1, 2, 2, 3, 3]))
    for kind in ("knn", "linear"):
        np.testing.assert_array_equal(scores[kind, "representation", "level0", "3x3", ""], np.ones(6))
        assert (kind, "untrained", "level0", "3x3", "") in scores
        assert (kind, "untrained", "level0", "3x3", "shuffled") not in scores
        assert (kind, "pixels", "level0", "", "single_frame") in scores


def test_rows_name_their_source(benchmark):
    assert benchmark.where("level1") == ("representation", "level1")
    assert benchmark.where("untrained, level2") == ("untrained", "level2")
    assert benchmark.where("pixels") == ("pixels", "pixels")


@pytest.mark.parametrize("method", ["hcml", "mscl", "moco", "fima", "cgm_net"])
def test_every_method_trains_on_all_clips_without_labels(benchmark, tmp_path, method):
    config = complete(benchmark.config_of(tmp_path, tmp_path / "all.csv", 0.5, method)).to_dict()
    built = build_method(config["method"], 0)
    assert config["data"]["table"] == str(tmp_path / "all.csv") and not built.classifies
    assert len(built.stages) == (3 if method == "hcml" else 1)
    assert method not in benchmark.PARTS or benchmark.PARTS[method] == built.deployed
    assert built.stages[0].reads.flow == (method == "mscl")


def test_a_method_without_levels_is_compared_by_its_backbone(benchmark, capsys):
    scores = {
        (kind, source, feature, grid, control): np.float32([1, 0, 1, 1])
        for kind in benchmark.KINDS
        for grid in benchmark.GRIDS
        for control in benchmark.CONTROLS
        for source, feature in [
            ("representation", "backbone"),
            ("untrained", "backbone"),
            *((name, name) for name in benchmark.BASELINES),
        ]
    }
    benchmark.show(scores, benchmark.with_intervals(scores), benchmark.LEVELS["mscl"])
    text = capsys.readouterr().out
    assert "| backbone | 0.750 (" in text and "| untrained, backbone | 0.750 (" in text
    assert "| linear, 3x3: backbone, optical_flow | +0.000 |" in text and "level0" not in text
