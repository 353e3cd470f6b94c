"""Ablations: every run's config is valid, every arm is tuned alike, and never on what is reported."""

import importlib
import json
import pathlib

import numpy as np
import pytest

from hcml_jax import methods, preflight
from hcml_jax.config import build
from hcml_jax.experiment import ExperimentConfig, complete

BENCHMARKS = pathlib.Path(__file__).parents[2] / "benchmarks"
RIGHT = "_1_"  # in the name of a folder: the factor of rates that is made the best


@pytest.fixture(params=["mscl", "fima", "cgm_net", "methods"])
def finished(request, monkeypatch, tmp_path):
    """The benchmark; what runs arms; folder's name -> config of what would have been run; results are made up."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    arms, benchmark, configs = importlib.import_module("arms"), importlib.import_module(request.param), {}

    def finish(self, config, folder):
        config = complete(config).to_dict()
        typed = build(ExperimentConfig, config)
        methods.build_method(config["method"], 16)
        preflight.check_splits(typed.training, typed.evaluation)
        assert folder.name not in configs or configs[folder.name] == config
        configs[folder.name] = config
        folder.mkdir(parents=True, exist_ok=True)
        share = 0.9 if RIGHT in folder.name else 0.1
        by_feature = {"backbone": share, "level2": share}
        (folder / "results.json").write_text(json.dumps({"knn": by_feature, "linear": by_feature, "top1": share}))
        figures = benchmark.ABLATION.figures.values()
        names = {".".join(figure.of(feature)): figure for figure in figures for feature in ("backbone", "level2")}
        values = {name: np.float32([0, 1, 1, 0]) * figure.unit * 100 for name, figure in names.items()}
        if config["method"]["name"] in ("supervised", "hcml"):  # which make no frames
            values = {name: array for name, array in values.items() if "prediction" not in name}
        np.savez(folder / "per_video.npz", **values)

    monkeypatch.setattr(arms.Processes, "finish", finish)
    if request.param == "mscl":
        monkeypatch.setattr(benchmark, "compute_flow", lambda workdir, weighting: workdir / f"flow_{weighting}")
    monkeypatch.setattr("sys.argv", ["benchmark", "--workdir", str(tmp_path), "--seeds", "3", "4"])
    arms.main(benchmark.ABLATION, "")
    return benchmark, arms, configs


def test_every_arm_is_tuned_alike_on_the_validation_split(finished, tmp_path):
    benchmark, arms, configs = finished
    by_split = {split: [c for c in configs.values() if c["evaluation"]["split"] == split] for split in ("val", "test")}
    number = len(benchmark.ARMS)
    assert len(by_split["val"]) == number * len(arms.FACTORS)
    assert len(by_split["test"]) == number * 2
    assert {c["seed"] for c in by_split["val"]} == {3}
    assert all(RIGHT in name for name, c in configs.items() if c["evaluation"]["split"] == "test")
    assert len({str((c["method"], c["data"])) for c in by_split["test"]}) == number * 2  # and seeds
    levels = [c["method"]["stages"] for c in configs.values() if c["method"]["name"] == "hcml"]
    rates = sorted({stages["level1"]["learning_rate"] for stages in levels})
    np.testing.assert_allclose(rates, [0.01, 0.03, 0.09])
    asked = {figure.protocol for figure in benchmark.ABLATION.figures.values()} | {*benchmark.ABLATION.protocols}
    assert all(set(c["evaluation"]["protocols"]) == asked for c in by_split["test"])
    assert all(len(c["evaluation"]["protocols"]) == 1 for c in by_split["val"])
    choices = json.loads((tmp_path / "choices.json").read_text())
    assert all(len(tried) == len(arms.FACTORS) for tried in choices.values())


def test_the_tables_have_every_arm(finished, tmp_path):
    benchmark, _, _ = finished
    text = (tmp_path / f"{benchmark.ABLATION.name}.md").read_text()
    for name in benchmark.ARMS:
        assert f"| {name} | 50.0 (0 to 100; 50.0, 50.0) |" in text
    assert {name for names in benchmark.TABLES.values() for name in names} == set(benchmark.ARMS)
