"""Every file in configs/: a header that tells what it is, fields that are valid, a model that fits its clips."""

import functools
import json
import pathlib
import re
import runpy

import jax
import pytest

from hcml_jax.batch import blank_batch
from hcml_jax.config import build
from hcml_jax.experiment import ExperimentConfig
from hcml_jax.methods import build_method
from hcml_jax.preflight import check_splits
from hcml_jax.training.mesh import Layout, make_mesh
from hcml_jax.training.optimizer import make_optimizer
from hcml_jax.training.step import init_state, make_train_step

FILES = sorted(p for p in (pathlib.Path(__file__).parent.parent / "configs").glob("*.py") if p.name != "__init__.py")


def variants():
    """Every file, with each paper that may stand after its name."""
    for path in FILES:
        for paper in runpy.run_path(str(path)).get("PAPERS", [None]):
            yield pytest.param(path, paper, id=path.stem + (f":{paper}" if paper else ""))


@pytest.mark.parametrize(("path", "paper"), [*variants()])
def test_config_is_valid_and_its_model_fits_its_clips(path, paper):
    config = runpy.run_path(str(path))["get_config"](*filter(None, [paper]))
    assert config.is_locked
    config = config.to_dict()
    rendered = (config["data"]["sprites"] or {}).get("rendered")
    config["data"]["root"] = config["data"]["root"] or ("" if rendered else "somewhere")
    typed = build(ExperimentConfig, config)
    check_splits(typed.training, typed.evaluation)
    clip_shape = (typed.data.frames, typed.data.crop, typed.data.crop, 3)
    check_steps(json.dumps(config["method"]), clip_shape, typed.training.batch_size)


@functools.cache  # configs of one method differ by their data alone
def check_steps(config, clip_shape, clips):
    method = build_method(json.loads(config), num_classes=5)
    batch = blank_batch(clips, clip_shape, method.stages[0].reads, like=jax.ShapeDtypeStruct)
    variables = jax.eval_shape(lambda *given: method.derive(method.init(*given)), jax.random.key(0), batch)
    for stage in method.stages:
        optimizer = make_optimizer(stage.schedule, clips=100, batch_size=clips)
        state = jax.eval_shape(lambda v, s=stage, o=optimizer: init_state(v, s, o, Layout(make_mesh())), variables)
        step = make_train_step(method, stage, optimizer, 0, Layout(make_mesh()))
        with jax.numpy_dtype_promotion("standard"):  # optax's Adam takes a float to the power of an integer
            after, metrics = jax.eval_shape(step, state, batch)
        assert metrics["loss"].shape == ()
        assert jax.tree.map(lambda x: (x.shape, x.dtype), after) == jax.tree.map(lambda x: (x.shape, x.dtype), state)


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_config_opens_with_paper_command_cost_and_result(path):
    header = runpy.run_path(str(path))["__doc__"]
    assert re.search(rf"--config configs/{path.name}(:\w+)? ", header)
    assert "Cost:" in header
    assert "Result:" in header
