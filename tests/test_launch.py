"""The whole way with `launch.py`: train, be killed, resume, evaluate, export, load; the notebook; wrong input."""

import json
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
import safetensors.numpy
from flax.traverse_util import flatten_dict

import hcml_jax
from data_pipelines import DataConfig, open_data
from hcml_jax.config import UserError
from hcml_jax.experiment import run
from hcml_jax.training.metrics import read_records
from tests import tiny_config
from tests.methods import tiny

ROOT = pathlib.Path(__file__).parent.parent


def command(workdir, data, *flags):
    config = f"--config={ROOT / 'tests' / 'tiny_config.py'}"
    root = f"--config.data.root={data}"
    return [sys.executable, "launch.py", config, f"--workdir={workdir}", root, *flags]


def launch(*args, **options):
    return subprocess.run(command(*args), cwd=ROOT, capture_output=True, text=True, check=False, **options)


@pytest.fixture(scope="session")
def sprites(tmp_path_factory):
    return tmp_path_factory.mktemp("data") / "sprites"


@pytest.fixture(scope="session")
def finished(tmp_path_factory, sprites):
    """A run from start to end, evaluation included."""
    workdir = tmp_path_factory.mktemp("runs") / "whole"
    result = launch(workdir, sprites)
    assert result.returncode == 0, result.stderr
    return workdir


def test_a_run_leaves_results_and_pictures(finished):
    results = json.loads((finished / "results.json").read_text())
    levels = {"level0", "level1", "level2", "backbone"}
    assert set(results["knn"]) == set(results["linear"]) == set(results["retrieval"]) == levels
    assert set(results["readouts"]) == {f"{name}/{grid}" for name in levels for grid in ("Tx1x1", "3x3")}
    assert set(results["readouts"]["level0/3x3"]) == {"knn", "linear", "retrieval"}
    assert set(results["baseline"]["retrieval"]["pixels"]) == {"1", "5"}
    assert set(results["controls"]) == {"reversed", "shuffled", "single_frame"}
    for low, high in (results["intervals"]["top1"], results["intervals"]["knn"]["level0"]):
        assert 0 <= low <= high <= 1
    assert set(results["untrained"]["knn"]) == set(results["untrained"]["linear"]) == levels
    assert {"epe", "epe_zero", "readout_epe", "l1", "psnr", "ssim"} <= results["flow"].keys()
    assert set(results["families"]) == {"elementary", "composed"}
    assert set(results["families"]["composed"]) == {"knn", "linear", "top1"}
    assert results["cost"]["parameters"] > 0
    assert 0 <= results["top1"] <= 1
    assert set(results["baseline"]["knn"]) == {"frame_difference", "optical_flow", "pixels"}
    assert results["labels"] == {"all": 16, "few_labels": 8}  # four classes, two of four clips
    assert set(results["few_labels"]["knn"]) == set(results["few_labels"]["linear"]) == levels
    assert "unfinished" not in results
    pictures = {p.name for p in (finished / "figures").iterdir()}
    drawn = {
        "flow.png",
        "curves.png",
        "retrieval.png",
        "retrieval.webp",
        "confusion.png",
        "activation.png",
        "embedding.png",
    }
    assert pictures == drawn
    page = (finished / "report.html").read_text()
    assert page.count("<img") == len(drawn) and "R@5" in page
    with np.load(finished / "per_video.npz") as scores:
        assert len(scores["video"]) == 8
        assert scores["top1"].mean() == results["top1"]
    assert list((finished / "events").iterdir())


def test_killed_and_resumed_equals_uninterrupted_bit_for_bit(finished, tmp_path, sprites):
    workdir = tmp_path / "killed"
    process = subprocess.Popen(
        command(workdir, sprites), cwd=ROOT, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 300
    while len(read_records(workdir)) < 7 and time.monotonic() < deadline:  # in the second stage
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert 7 <= len(read_records(workdir)) < 16
    brief = "--config.evaluation.protocols=('recognition', 'neighbours')", "--config.evaluation.figure_clips=0"
    result = launch(workdir, sprites, *brief)
    assert result.returncode == 0, result.stderr
    assert "resuming at step" in result.stderr
    whole, resumed = (hcml_jax.load(folder).variables for folder in (finished, workdir))
    jax.tree.map(np.testing.assert_array_equal, resumed, whole)
    ours, theirs = (flatten_dict(json.loads((folder / "results.json").read_text())) for folder in (workdir, finished))
    assert ours == {path: theirs[path] for path in ours}


def test_an_export_predicts_the_same_without_its_side_branch(finished, sprites, tmp_path):
    result = launch(finished, sprites, "--mode=export")
    assert result.returncode == 0, result.stderr
    model, exported = hcml_jax.load(finished), hcml_jax.load(finished / "export")
    assert "heads" in model.variables["params"]
    assert "heads" not in exported.variables["params"]
    clips = np.random.default_rng(0).integers(0, 256, (2, 8, 32, 32, 3), dtype=np.uint8)
    np.testing.assert_array_equal(exported.predict(clips), model.predict(clips))
    np.testing.assert_allclose(model.predict(clips).sum(1), 1, rtol=1e-5)
    assert model.flow(clips)["level0"].shape == (2, 7, 32, 32, 2)
    with pytest.raises(UserError, match="the export of a recogniser"):
        exported.flow(clips)
    tensors = safetensors.numpy.load_file(finished / "export" / "backbone.safetensors")
    kernel = model.variables["params"]["backbone"]["stem"]["conv"]["kernel"]
    np.testing.assert_array_equal(tensors["conv1.weight"], np.transpose(kernel[0], (3, 2, 0, 1)))
    assert tensors["fc.bias"].shape == (4,)
    assert "level0.reduce.conv.weight" in tensors
    program = jax.export.deserialize((finished / "export" / "model.jaxexport").read_bytes())
    found, features = program.call(clips), model.features(clips)
    np.testing.assert_allclose(found["probabilities"], model.predict(clips), rtol=1e-4)
    for name, values in features.items():
        np.testing.assert_allclose(found["features"][name], values, rtol=1e-3, atol=1e-5)
    assert json.loads((finished / "export" / "model.json").read_text())["classes"] == list(model.classes)
    asked = {"evaluation__protocols": ("recognition", "flow")}
    wrong(tmp_path, sprites, mode="evaluate", init_from__path=str(finished / "export"), **asked)
    ours, theirs = (json.loads((folder / "results.json").read_text()) for folder in (tmp_path / "run", finished))
    assert ours["top1"] == theirs["top1"]
    assert {"epe", "l1"} <= theirs["flow"].keys()
    assert ours["flow"].keys() == {"readout_epe", "epe_zero", "epe_zero_by_level"}  # it has no head
    again = launch(finished, sprites, "--mode=export")
    assert again.returncode != 0
    assert "is there already" in again.stderr


def test_given_weights_are_evaluated_as_they_are(finished, sprites, tmp_path):
    """In a new folder: what `init_from` names, here the end of a run, without a step of training."""
    wrong(tmp_path, sprites, mode="evaluate", init_from__path=str(finished))
    ours, theirs = (json.loads((folder / "results.json").read_text()) for folder in (tmp_path / "run", finished))
    assert ours["top1"] == theirs["top1"]
    assert ours["untrained"]["knn"] == theirs["untrained"]["knn"]
    assert ours["knn"]["backbone"] != theirs["knn"]["backbone"] or ours["knn"] != theirs["knn"]  # after the joint stage
    assert not (tmp_path / "run" / "checkpoints").exists()
    assert ours["checkpoint"] == {"given": str(finished)}
    others = ("rotate_clockwise", "translate_right", "speed_up", "slow_down")
    data = {"data__sprites": tiny_config.get_config().data.sprites.to_dict() | {"classes": others}}
    with pytest.raises(
        UserError, match="classifies other classes, such as 'translate_left' where .*'rotate_clockwise'"
    ):
        wrong(tmp_path / "a", tmp_path / "others", mode="evaluate", init_from__path=str(finished), **data)
    with pytest.raises(UserError, match="holds no run"):
        wrong(tmp_path / "a", sprites, mode="evaluate")
    for mode in ("report", "export"):
        with pytest.raises(UserError, match="holds no run"):
            wrong(tmp_path / "a", sprites, mode=mode)


def test_clips_of_the_reported_split_suffice_for_protocols_that_learn_from_no_others(finished, sprites, tmp_path):
    header, *rows = (sprites / "table.csv").read_text().splitlines()
    (tmp_path / "test.csv").write_text("\n".join([header, *(row for row in rows if ",test," in row)]))
    # Classes are in the network's order, not by name.
    fields = {"data__sprites": None, "data__table": str(tmp_path / "test.csv"), "init_from__path": str(finished)}
    everything = {"mode": "evaluate", "evaluation__protocols": ("recognition", "flow", "controls", "cost")}
    wrong(tmp_path, sprites, **fields, **everything)
    ours, theirs = (json.loads((folder / "results.json").read_text()) for folder in (tmp_path / "run", finished))
    assert ours["top1"] == theirs["top1"]
    assert ours["flow"]["l1"].keys() == theirs["flow"]["l1"].keys()
    assert "top1" in ours["controls"]["reversed"]
    (tmp_path / "test.csv").write_text("\n".join([header, *(r for r in rows if ",test," in r and "speed_up" not in r)]))
    asked = {"mode": "evaluate", "evaluation__protocols": ("recognition",), "evaluation__figure_clips": 1}
    wrong(tmp_path / "some", sprites, **fields, **asked)  # of a class that the network knows there is no clip
    found = tmp_path / "some" / "run"
    described = [json.loads((folder / "run.json").read_text())["classes"] for folder in (found, finished)]
    assert described[0] == described[1]
    assert (found / "figures" / "confusion.png").exists()
    for mode in ("train", "evaluate"):  # neighbours need a gallery
        with pytest.raises(UserError, match="config.data: the table has no split 'train'"):
            wrong(tmp_path / mode, sprites, mode=mode, **fields)


def test_several_classifiers_are_chosen_among_on_clips_held_out(finished, sprites, tmp_path):
    """Linear training on the finished run's network."""
    described = json.loads((finished / "run.json").read_text())["config"]
    fields = {
        "method": {
            "name": "linear",
            "backbone": described["method"]["backbone"],
            "motion_blocks": ("res2", "res3", "res4"),
            "rates": (1.0, 10.0),
            "stages": {"linear": tiny.schedule()},
        },
        "init_from__path": str(finished),
        "init_from__prefixes": ("backbone",),
        "evaluation__protocols": ("recognition",),
    }
    with pytest.raises(UserError, match="one of 2 classifiers is chosen by a split .*'validation' is not there"):
        wrong(tmp_path, sprites, **fields)
    for split, why in (("test", "reported"), ("train", "trained on")):
        with pytest.raises(UserError, match=f"'{split}' is {why}"):
            wrong(tmp_path, sprites, evaluation__selection=split, **fields)
    wrong(tmp_path, sprites, evaluation__selection="val", **fields)
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["selected"]["split"] == "val"
    shares = results["selected"]["top1"]
    assert shares[results["selected"]["classifier"]] == max(shares.values())
    assert results["top1"] == results["classifiers"][results["selected"]["classifier"]]["top1"]
    wrong(tmp_path, sprites, mode="export", evaluation__selection="val", **fields)
    model, exported = (hcml_jax.load(tmp_path / "run" / folder) for folder in ("", "export"))
    clips = np.random.default_rng(0).integers(0, 256, (2, 8, 32, 32, 3), dtype=np.uint8)
    chosen = model.method.classifiers.index(results["selected"]["classifier"])
    of_all = jax.nn.softmax(model.encode(clips).logits)
    np.testing.assert_allclose(model.predict(clips), of_all[:, chosen], rtol=1e-5)
    np.testing.assert_allclose(exported.predict(clips), of_all[:, chosen], rtol=1e-5)
    program = jax.export.deserialize((tmp_path / "run" / "export" / "model.jaxexport").read_bytes())
    np.testing.assert_allclose(program.call(clips)["probabilities"], of_all[:, chosen], rtol=1e-4)
    trained = model.variables
    jax.tree.map(
        np.testing.assert_array_equal,
        trained["params"]["backbone"],
        hcml_jax.load(finished).variables["params"]["backbone"],
    )


def test_a_run_starts_from_part_of_another(finished, sprites, tmp_path, capsys):
    fields = {
        "init_from__path": str(finished),
        "init_from__prefixes": ("backbone",),
        "method__levels": ("reconstruction",),
        "method__stages": {"level0": tiny.schedule(1)},
        "method__backbone__name": "r2d_10",
    }
    with pytest.raises(UserError, match=r"holds backbone/level1/.*config\.init_from\.prefixes"):
        wrong(tmp_path, sprites, **fields)
    fields["init_from__prefixes"] = ("backbone/stem", "backbone/res5")
    wrong(tmp_path, sprites, **fields)
    said = capsys.readouterr().err
    assert f"starting from {finished}: " in said
    assert "fresh: backbone/level0, backbone/res2, backbone/res3" in said
    theirs, ours = (hcml_jax.load(run).variables["params"]["backbone"]["res5"] for run in (finished, tmp_path / "run"))
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)  # level 0 leaves it alone


def test_levels_learnt_once_serve_a_joint_run(finished, sprites, tmp_path, capsys):
    """A run that begins at its joint stage is the one that came to it, on the same levels."""
    fields = {"init_from__path": str(finished), "init_from__stage": "level2", "training__first_stage": "joint"}
    wrong(tmp_path, sprites, **fields)
    records = [read_records(folder) for folder in (finished, tmp_path / "run")]
    joint = [[(r["stage_step"], r["split"], r["loss"]) for r in found if r["stage"] == "joint"] for found in records]
    assert joint[0] == joint[1] and {r["stage"] for r in records[1]} == {"joint"}
    ours, theirs = (hcml_jax.load(folder).variables for folder in (tmp_path / "run", finished))
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)
    ours, theirs = (json.loads((folder / "results.json").read_text()) for folder in (tmp_path / "run", finished))
    assert ours["knn"] == ours["untrained"]["knn"] == theirs["knn"]
    assert ours["random"]["knn"] == theirs["untrained"]["knn"]
    assert ours["checkpoint"] == {"last": 2, "representation": 0, "start": 0}
    with pytest.raises(UserError, match="no stage 'joit'. Did you mean 'joint'"):
        wrong(tmp_path / "a", sprites, **fields | {"training__first_stage": "joit"})
    with pytest.raises(UserError, match="no stage 'level3' has ended. Did you mean 'level"):
        wrong(tmp_path / "a", sprites, **fields | {"init_from__stage": "level3"})
    with pytest.raises(UserError, match="first_stage 'joint' needs weights"):
        wrong(tmp_path / "a", sprites, training__first_stage="joint")


def test_mirrored_labels_are_warned_of(sprites, tmp_path, finished, capsys):
    """Told before the stages are checked, which ends this run."""
    fields = {"method__flip": True, "method__joint_batch_norm_group": 3}
    with pytest.raises(UserError, match="batch-norm groups"):
        wrong(tmp_path, sprites, **fields)
    assert "flip mirrors clips, which may change labels such as 'translate_left'" in (capsys.readouterr().err)


def test_the_notebook_runs(finished, sprites, monkeypatch):
    import nbformat
    from nbclient import NotebookClient

    folder = ROOT / "notebooks"
    notebook = nbformat.read(folder / "quickstart.ipynb", as_version=4)
    monkeypatch.setenv("HCML_WORKDIR", str(finished))
    monkeypatch.setenv("HCML_DATA", str(sprites))
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(folder)}}).execute()


def wrong(tmp_path, sprites, *, workdir=None, mode="train", **fields):
    """The tiny config with some dotted fields set, run in this process."""
    config = tiny_config.get_config().to_dict()
    config["data"]["root"] = str(sprites)
    config["evaluation"] |= {"protocols": ("recognition", "neighbours"), "figure_clips": 0}
    for name, value in fields.items():
        *parents, last = name.split("__")
        inner = config
        for parent in parents:
            inner = inner[parent]
        inner[last] = value
    run(config, str(workdir or tmp_path / "run"), mode)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"method__level": ("reconstruction",)}, "config.method.level is not a field.*'levels'"),
        ({"training__batch_size": 2.5}, "config.training.batch_size must be int, not float"),
        ({"metod": {}}, "config.metod is not a field of .* Did you mean 'method'"),
        ({"method__name": "hclm"}, "no method 'hclm'. Did you mean 'hcml'"),
        ({"seed": "0"}, "config.seed must be int, not str '0'"),
        ({"evaluation__protocols": ("knn",)}, "protocols: there is no 'knn'. Valid: recognition"),
        ({"evaluation__baselines": ("pixel",)}, "baselines: there is no 'pixel'. Did you mean 'pixels'"),
        ({"evaluation__views": ("10",)}, "views: found '10', must be clips x squares"),
        ({"evaluation__readouts": ("3by3",)}, "no read-out is called '3by3'"),
        ({"evaluation__average": "logits"}, "average: there is no 'logits'. Valid: probabilities, scores"),
        ({"evaluation__neighbours": (20,)}, "neighbours: 20 is more than the 16 labelled clips of split 'train'"),
        (
            {"evaluation__recall_at": (17,), "evaluation__protocols": ("retrieval",)},
            "recall_at: 17 is more than the 16",
        ),
        ({"evaluation__crop": 48}, "config.evaluation: crop 48 must not exceed short_side 32"),
        ({"evaluation__temperature": 0.0}, "temperature must be above 0"),
        ({"data__crop": 40}, "crop: found 40, must not exceed the least short_side, 32"),
        ({"data__frames": 9}, "span 9', must span at most sprites.frames, 8"),
        ({"method__joint_batch_norm_group": 3}, "config.method does not fit.*not divide into batch-norm groups of 3"),
        ({"method__dtype": "floot32"}, "dtype must be 'float32' or 'bfloat16', not 'floot32'"),
        ({"method__temperature": 0.0}, "temperature must be above 0"),
        ({"method__positions": 0}, "positions must be 1 or more"),
        ({"method__backbone__motion__reduction": 0}, "reduction.* must be 1 or more"),
        ({"method__backbone__motion__reduction": 3}, "config.method does not fit.* do not divide by 3"),
        ({"method__stages": 5}, "config.method.stages must hold named fields, not 5"),
        ({"data__frames": 4}, "config.method does not fit.*level2 has 1 frame"),
        ({"evaluation__split": "tset"}, "no split 'tset'. Did you mean 'test'"),
        ({"training__validation_split": "vla"}, "no .*split 'vla'"),
        ({"training__validation_split": "test"}, "are both 'test': .*validation_share"),
        ({"data__validation_share": 1.5}, "validation_share"),
        ({"data__sprites": None, "data__root": "/nowhere/at/all"}, "/nowhere/at/all"),
        (
            {"method": {"name": "tests.methods.moco:MoCo", "stages": {"contrst": {"steps": 1}}}},
            "config.method: stages must be exactly 'contrast'",
        ),
        ({"init_from__path": "/nowhere"}, "config.init_from.path: /nowhere holds no run"),
        ({"init_from__pth": "/nowhere"}, "init_from.pth is not a field.*'path'"),
    ],
)
def test_wrong_input_is_refused_before_anything_is_trained(sprites, tmp_path, finished, fields, message):
    with pytest.raises(UserError, match=message):
        wrong(tmp_path, sprites, **fields)
    assert not (tmp_path / "run" / "run.json").exists()  # the corrected command may use the folder


def test_a_batch_that_does_not_divide_over_the_devices_is_refused(sprites, tmp_path, finished, monkeypatch):
    class EightDevices:
        size = 8

    monkeypatch.setattr("hcml_jax.preflight.make_mesh", EightDevices)
    with pytest.raises(UserError, match="batch_size 4 does not divide over 8 devices; 8 would"):
        wrong(tmp_path, sprites)
    assert not (tmp_path / "run" / "run.json").exists()


def test_any_field_can_be_set_on_the_command_line(tmp_path):
    """Also those that no config file spells out."""
    flags = ["--config.data.root=/nowhere", "--config.data.cache_mb=0", "--config.method.progressive=False"]
    config = ["--config=configs/hcml_folder.py", f"--workdir={tmp_path / 'run'}"]
    result = subprocess.run(
        [sys.executable, "launch.py", *config, *flags], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode != 0
    assert "stages must be ('levels',)" in result.stderr  # what follows from the last flag


def test_a_table_in_the_folder_gives_its_classes(sprites):
    data = DataConfig(root=str(sprites), frames=8, stride=1, short_side=(32, 32), crop=32)
    assert len(open_data(data).classes) == 4


def test_a_workdir_of_another_config_is_refused_and_left_alone(finished, sprites):
    before = {p: p.stat().st_mtime_ns for p in finished.rglob("*") if p.is_file()}
    result = launch(finished, sprites, "--config.method.smoothness_weight=0.5")
    assert result.returncode != 0
    assert "config.method.smoothness_weight: 0.02 there, 0.5 now" in result.stderr
    assert "Traceback" not in result.stderr
    assert before == {p: p.stat().st_mtime_ns for p in finished.rglob("*") if p.is_file()}


def test_a_run_that_ends_while_tensorflow_is_imported_ends_in_one_message(tmp_path, sprites, finished):
    result = launch(tmp_path / "run", sprites, "--config.method.joint_batch_norm_group=3")
    assert result.returncode != 0
    assert "not divide into batch-norm groups of 3" in result.stderr
    assert "Traceback" not in result.stderr


def test_clips_that_have_changed_are_another_run(finished, sprites, tmp_path):
    folder = shutil.copytree(sprites, tmp_path / "sprites")
    fields = {"data__root": str(folder)}
    workdir = shutil.copytree(finished, tmp_path / "run", ignore=shutil.ignore_patterns("features"))
    wrong(tmp_path, sprites, mode="evaluate", **fields)  # a folder may move
    ours, theirs = (flatten_dict(json.loads((run / "results.json").read_text())) for run in (workdir, finished))
    assert ours == {path: theirs[path] for path in ours}
    lines = (folder / "table.csv").read_text().splitlines()
    (folder / "table.csv").write_text("\n".join(lines[:-1]) + "\n")
    with pytest.raises(UserError, match=r"(?s)clips.digest: .*clips.val: 4 there, 3 now"):
        wrong(tmp_path, sprites, mode="train", **fields)


def test_an_export_with_another_config_is_refused(finished, sprites):
    with pytest.raises(UserError, match="config.method.temperature: 0.07 there, 0.5 now"):
        wrong(None, sprites, workdir=finished, mode="export", method__temperature=0.5)


@pytest.mark.parametrize(
    "flags",
    [
        ["--config=configs/hcml_flder.py", "--config.data.root=/data"],
        ["--config=configs/hcml_folder.py", "--config.data.sprites.size=32"],
    ],
)
def test_a_mistyped_command_ends_in_one_message(tmp_path, flags):
    result = subprocess.run(
        [sys.executable, "launch.py", f"--workdir={tmp_path / 'run'}", *flags],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode not in (0, None)
    assert "Traceback" not in result.stderr
    assert "hcml_flder.py" in result.stderr or "sprites" in result.stderr


def test_a_mistyped_field_on_the_command_line_is_refused(tmp_path, sprites):
    result = launch(tmp_path / "run", sprites, "--config.method.smoothness_wieght=0.5")
    assert result.returncode != 0
    assert "no such field: 'smoothness_wieght'. Did you mean \"smoothness_weight\"" in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("mode", ["evaluate", "export"])
def test_a_folder_that_holds_no_run_is_not_made_one(tmp_path, mode):
    with pytest.raises(UserError, match="nowhere holds no run"):
        wrong(None, "somewhere", workdir=tmp_path / "nowhere", mode=mode)
    assert not (tmp_path / "nowhere").exists()


def test_a_folder_that_holds_no_run_cannot_be_loaded(tmp_path):
    with pytest.raises(UserError, match="holds no run"):
        hcml_jax.load(tmp_path)


def test_a_run_without_labels_trains_the_self_supervised_stages_alone(tmp_path, sprites, finished):
    workdir = tmp_path / "run"
    config = tiny_config.get_config().to_dict()
    config["data"] |= {"root": str(sprites / "train"), "sprites": None}
    config["training"]["validation_split"] = ""
    run(config, str(workdir), "train")
    stages = {record["stage"] for record in read_records(workdir)}
    assert stages == {"level0", "level1", "level2"}
    assert {p.name for p in (workdir / "figures").iterdir()} == {"curves.png", "flow.png", "activation.png"}
    assert set(json.loads((workdir / "results.json").read_text())) >= {"checkpoint"}
    with pytest.raises(UserError, match="no labels"):
        hcml_jax.load(workdir).predict(np.zeros((1, 8, 32, 32, 3), np.uint8))
