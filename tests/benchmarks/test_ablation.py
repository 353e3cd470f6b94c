"""Trials and ablations: every run's config is valid, every arm is tuned alike, and never on what is reported."""

import importlib
import json
import pathlib
import threading

import numpy as np
import pytest

from data_pipelines.config import DataConfig
from hcml_jax import methods, preflight
from hcml_jax.config import UserError, build
from hcml_jax.experiment import ExperimentConfig, complete

BENCHMARKS = pathlib.Path(__file__).parents[2] / "benchmarks"
RIGHT = ("steps", 1200, 1e-2)  # the try that is made the best


@pytest.fixture
def ablation(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("ablation")


@pytest.fixture
def made_up(ablation, monkeypatch, tmp_path):
    """Folder -> config of what would have been run, by arguments of the command line; results are made up."""
    configs, making = {}, threading.Lock()

    def finish(self, config, folder, mode="train"):
        config = complete(config).to_dict()
        assert (mode == "train") == ("without_cue" not in folder.name)
        typed = build(ExperimentConfig, config)
        method = methods.build_method(config["method"], 16)
        preflight.check_splits(typed.training, typed.evaluation)
        assert isinstance(typed.data, DataConfig)
        with making:  # once, as `Processes` does
            known = configs.setdefault(folder, config)
            assert known == config
            if not folder.exists():
                make(folder, method)

    def make(folder, method):
        folder.mkdir(parents=True)
        last = method.stages[-1].schedule
        best = (last.steps, last.learning_rate) == RIGHT[1:]
        levels = {f"level{level}": 0.5 for level in range(3)}
        results = {"top1": 0.9 if best else 0.1, "linear": levels, "efficacy": levels}
        (folder / "results.json").write_text(json.dumps(results))
        names = ["top1", *(f"linear.{n}" for n in levels)]
        names += [f"readouts.{n}/Tx1x1.{protocol}" for n in levels for protocol in ("linear", "knn")]
        np.savez(folder / "per_video.npz", **{name: np.float32([0, 1, 1, 0]) for name in names})

    def call(*arguments):
        monkeypatch.setattr("sys.argv", ["ablation.py", "--workdir", str(tmp_path), *arguments])
        ablation.main()
        return configs

    monkeypatch.setattr(ablation.Processes, "finish", finish)
    return call


@pytest.fixture
def finished(made_up):
    return made_up("--seeds", "3", "4")


def test_every_arm_is_tuned_alike_on_the_validation_split(ablation, finished, tmp_path):
    choices = json.loads((tmp_path / "choices.json").read_text())
    assert choices.keys() == {name for name, arm in ablation.ARMS.items() if arm.joint}
    for choice in choices.values():
        assert len(choice["validation"]) == len(ablation.TRIES)
        assert (choice["steps"], choice["rate"]) == RIGHT[1:]
    for config in finished.values():
        assert config["seed"] == config["data"]["labels_seed"] in (3, 4)
        assert config["data"]["sprites"]["rendered"] and not config["data"]["root"]
        assert config["evaluation"]["split"] in ("val", "test")
        classifies = config["evaluation"]["protocols"] == ("recognition",)
        assert config["training"]["validation_split"] == ("" if classifies else "val")
    tried = [c for c in finished.values() if c["evaluation"]["split"] == "val"]
    assert {c["seed"] for c in tried} == {3}


def test_what_learns_a_classifier_starts_from_levels_of_its_own_supervision(ablation, finished, tmp_path):
    for folder, config in finished.items():
        start = config["init_from"]["path"]
        if config["training"]["first_stage"]:
            levels, count = finished[pathlib.Path(start)], len(config["method"]["levels"])
            assert levels["method"]["levels"][:count] == config["method"]["levels"]
            if count < 3:
                assert config["init_from"]["stage"] == f"level{count - 1}"
                assert {p for p in config["init_from"]["prefixes"] if "level" in p} == {
                    f"{part}/level{level}" for part in ("backbone", "heads") for level in range(count)
                }
            assert levels["seed"] == config["seed"]
            assert config["method"]["stages"].keys() - levels["method"]["stages"].keys() == {"joint"}
        else:
            assert not start, folder


def test_an_earlier_choice_stands_in_for_tuning(made_up, tmp_path):
    choices = tmp_path / "earlier.json"
    choices.write_text(json.dumps({"motion blocks": {"steps": 300, "rate": 3e-2, "levels_rate": None}}))
    configs = made_up("--seeds", "3", "4", "--arms", "motion blocks", "--choices", str(choices))
    assert [c["method"]["stages"]["supervised"]["steps"] for c in configs.values()] == [300, 300]
    assert {c["evaluation"]["split"] for c in configs.values()} == {"test"}
    row = "| motion blocks | 50.0 (0 to 100; 50.0, 50.0) |"
    titles = ("Table 2", "its networks on the labels alone")
    tables = [f"| {title} | top-1 |\n|---|---|\n{row}\n" for title in titles]
    assert (tmp_path / "ablation.md").read_text() == "\n".join(tables)  # of what was run, and no others


def test_levels_that_learnt_with_a_cue_are_read_without_it_too(made_up, tmp_path):
    arms = ("HCML", "action at every level")
    configs = made_up("--seeds", "3", "--arms", *arms, "--levels-alone", "--appearance-cue", "0.9")
    read = {folder.name: config for folder, config in configs.items() if "without_cue" in folder.name}
    learnt = {folder: config for folder, config in configs.items() if folder.name not in read}
    assert len(read) == len(learnt) == len(arms)
    assert {config["data"]["sprites"]["appearance_cue"] for config in learnt.values()} == {0.9}
    assert {pathlib.Path(config["init_from"]["path"]) for config in read.values()} == set(learnt)
    for config in read.values():
        start = learnt[pathlib.Path(config["init_from"]["path"])]
        assert config["data"]["sprites"]["appearance_cue"] == 0
        assert [config[part] for part in ("method", "seed")] == [start[part] for part in ("method", "seed")]
    text = (tmp_path / "ablation.md").read_text()
    assert [f"| {title}: linear probe, mean |" in text for title in ("Table 1", "read without cue")] == [True, True]


@pytest.mark.parametrize(
    ("choices", "message"),
    [({"HCLM": {}}, "no arm 'HCLM'. Did you mean 'HCML'"), ({"HCML": {"steps": 300}}, "HCML lacks levels_rate, rate")],
)
def test_choices_that_do_not_fit_are_refused(made_up, tmp_path, choices, message):
    (tmp_path / "earlier.json").write_text(json.dumps(choices))
    with pytest.raises(UserError, match=message):
        made_up("--choices", str(tmp_path / "earlier.json"))


def test_the_tables_have_every_arm(ablation, finished, tmp_path):
    text = (tmp_path / "ablation.md").read_text()
    for name, arm in ablation.ARMS.items():
        assert not arm.joint or f"| {name} | 50.0 (0 to 100; 50.0, 50.0) |" in text
    assert text.count("| the first less the second | 0.0 (0.0 to 0.0) |") == 2
    assert "| level 0 | 50.0 (0 to 100; 50.0, 50.0) | 50.0 (0 to 100; 50.0, 50.0) | - |" in text


def test_trials_of_the_pretext_are_configs(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    pretext = importlib.import_module("pretext")
    made = {}

    class Recorder:
        def finish(self, config, folder):
            made[folder.name] = build(ExperimentConfig, config := complete(config).to_dict())
            last, kind = methods.build_method(config["method"], 16).stages[-1].name, folder.name.partition("-")[0]
            assert last == ("joint" if kind == "whole" else kind)

    trials = pretext.Trials(tmp_path, Recorder())
    for level in (1, 2):
        for name in pretext.TRIALS:
            trials.run(level, name, 5)
    assert trials.whole("half in time", 5).name == "whole-half_in_time-5"
    levels = [{name for name in made if name.startswith(f"level{level}")} for level in range(3)]
    assert levels[0] == {"level0-the_demo-5"} and len(levels[1]) == len(levels[2]) == len(pretext.TRIALS)
    demo = made["level1-the_demo-5"]
    assert demo.init_from.path == str(tmp_path / "level0-the_demo-5") and demo.training.first_stage == "level1"
    assert {c.evaluation.split for c in made.values()} == {"val"}
    assert {made[name].init_from.path for name in levels[2]} == {str(tmp_path / "level1-the_demo-5")}
    whole = made["whole-half_in_time-5"]
    assert (whole.init_from, whole.training.first_stage) == (demo.init_from, "level1")
    assert (whole.method["temporal_weight"], whole.method["stages"]["level1"]["steps"]) == (0.5, 1000)
