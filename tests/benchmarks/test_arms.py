"""Ablations: every run's config is valid, every arm is tuned alike, and never on what is reported."""

import importlib
import json
import pathlib
import re
import threading

import numpy as np
import pytest

from hcml_jax import methods, preflight
from hcml_jax.config import build
from hcml_jax.experiment import ExperimentConfig, complete

BENCHMARKS = pathlib.Path(__file__).parents[2] / "benchmarks"
# What a run's `per_video.npz` holds -> twice its mean, as it is made up here.
HELD = {
    **{f"{kind}.{name}": 1.0 for kind in ("knn", "linear", "few_labels.linear") for name in ("backbone", "level2")},
    **{f"readouts.{name}/Tx1x1.{kind}": 1.0 for kind in ("knn", "linear") for name in ("backbone", "level2")},
    **{f"retrieval.{name}.1": 1.0 for name in ("backbone", "level2")},
    **{
        f"controls.{control}.linear.{name}": 1.0
        for control in ("reversed", "shuffled", "single_frame")
        for name in ("backbone", "level2")
    },
    "top1": 1.0,
    **{
        f"prediction.{part}.{kind}.{maker}": twice
        for part in ("seen", "unseen")
        for kind, twice in (("l1", 0.1), ("psnr", 100.0), ("ssim", 1.0))
        for maker in ("learnt", "motion, flow", "level0, flow", "copying")
    },
}
# Frames that an arm does not make, or that are another arm's.
LACKING = {"HCML": 4, "the same backbone on the labels alone": 8}
LACKING |= dict.fromkeys(("backbone", "backbone and LR", "backbone and HR"), 8)
RIGHT = "_1_"  # in the name of a folder: the factor of rates that is made the best


@pytest.fixture(params=["mscl", "fima", "cgm_net", "methods"])
def finished(request, monkeypatch, tmp_path):
    """The benchmark; what runs arms; folder's name -> config of what would have been run; results are made up."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    arms, benchmark, configs = importlib.import_module("arms"), importlib.import_module(request.param), {}

    making = threading.Lock()

    def finish(self, config, folder, mode="train"):
        config = complete(config).to_dict()
        start = config["init_from"]["path"]
        assert mode == ("evaluate" if start else "train")
        if start:  # its networks are there, and are what is read
            learnt = configs[pathlib.Path(start).name]
            assert RIGHT in start and learnt["seed"] == config["seed"]
            differs = {field for field, value in config["method"].items() if learnt["method"][field] != value}
            assert differs == {"inference"}
        typed = build(ExperimentConfig, config)
        methods.build_method(config["method"], 16)
        preflight.check_splits(typed.training, typed.evaluation)
        with making:  # once, as `Processes` does
            known = configs.setdefault(folder.name, config)
            assert known == config
            if not folder.exists():
                make(folder, config)

    def make(folder, config):
        folder.mkdir(parents=True)
        share = 0.9 if RIGHT in folder.name else 0.1
        by_feature = {"backbone": share, "level2": share}
        (folder / "results.json").write_text(json.dumps({"knn": by_feature, "linear": by_feature, "top1": share}))
        values = {name: np.float32([0, 1, 1, 0]) * unit for name, unit in HELD.items()}
        absent = {"cgm_net": "level0, flow", "hcml": "learnt|motion|unseen"}.get(config["method"]["name"], "prediction")
        absent = "prediction" if config["init_from"]["path"] else absent
        values = {name: array for name, array in values.items() if not re.search(absent, name)}
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
    trained = [name for name, arm in benchmark.ARMS.items() if not arm.read_of]
    assert len(by_split["val"]) == len(trained) * len(arms.FACTORS)
    assert len(by_split["test"]) == number * 2
    assert {c["seed"] for c in by_split["val"]} == {3}
    assert all(RIGHT in name for name, c in configs.items() if c["evaluation"]["split"] == "test")
    assert len({str((c["method"], c["data"])) for c in by_split["test"]}) == number * 2  # and seeds
    levels = [c["method"]["stages"] for c in configs.values() if c["method"]["name"] == "hcml"]
    rates = sorted({stages["level1"]["learning_rate"] for stages in levels})
    np.testing.assert_allclose(rates, [0.01, 0.03, 0.09])
    asked = {figure.protocol for figure in benchmark.ABLATION.figures.values()} | {*benchmark.ABLATION.protocols}
    assert all(set(c["evaluation"]["protocols"]) == asked for c in by_split["test"] if not c["init_from"]["path"])
    alone = [*by_split["val"], *(c for c in by_split["test"] if c["init_from"]["path"])]
    assert all(c["evaluation"]["protocols"] == (benchmark.ABLATION.chosen_by.protocol,) for c in alone)
    assert all(c["evaluation"]["readouts"] == benchmark.ABLATION.readouts for c in configs.values())
    choices = json.loads((tmp_path / "choices.json").read_text())
    assert all(len(tried) == len(arms.FACTORS) for tried in choices.values())


def test_the_tables_have_every_arm(finished, tmp_path):
    benchmark, _, _ = finished
    text = (tmp_path / f"{benchmark.ABLATION.name}.md").read_text()
    lines = {line.split(" | ")[0].strip("| "): line.strip("| ").split(" | ")[1:] for line in text.splitlines()}
    for name in benchmark.ARMS:
        assert {re.sub(r" \(.*", "", cell) for cell in lines[name]} <= {"50.0", "-"}, name
        lacking = LACKING if benchmark.ABLATION.name == "cgm_net" else {}
        assert lines[name].count("-") == lacking.get(name, 0)
    assert {name for names in benchmark.TABLES.values() for name in names} == set(benchmark.ARMS)
