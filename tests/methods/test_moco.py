"""A method of one's own, outside the package: two views, a moving-average encoder, a queue; from start to end."""

import dataclasses
import functools
import json

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hcml_jax
from hcml_jax.config import ConfigError
from hcml_jax.contrastive import info_nce
from hcml_jax.experiment import complete, run
from hcml_jax.methods import build_method
from hcml_jax.training.mesh import Layout, make_mesh
from hcml_jax.training.step import abstract_variables
from tests import tiny_config
from tests.methods import tiny
from tests.methods.stages import leaves
from tests.training import memory
from tests.training.test_loop import final_variables

CONFIG = {
    "name": "tests.methods.moco:MoCo",
    "backbone": {**tiny.BACKBONE, "motion": {}},
    "queue": 8,
    "momentum": 0.5,
    "stages": {"contrast": tiny.schedule(4)},
}


@pytest.fixture(scope="module")
def method():
    return build_method(CONFIG, num_classes=3)


@pytest.fixture(scope="module")
def two_views(method):
    return tiny.batch(reads=method.stages[0].reads)


@pytest.fixture(scope="module")
def variables(method, two_views):
    return jax.jit(lambda *given: method.derive(method.init(*given)))(jax.random.key(0), two_views)


def test_the_loss_is_that_of_queries_with_keys_and_the_queue(method, variables, two_views):
    stage = method.stages[0]
    loss, outputs = jax.jit(functools.partial(method.loss, stage=stage, train=False))(
        variables, two_views, jax.random.key(0)
    )
    assert outputs.collections == {}

    def projections(view):
        given = {name: variables[name] for name in ("params", "batch_stats")}
        clip = method._prepare(two_views.clip[:, view], None)
        return np.asarray(method.network.apply(given, clip, False)[1])

    queries, keys = projections(0), projections(1)
    losses = []
    for query, key in zip(queries, keys, strict=True):
        candidates = np.concatenate([key[None], variables["queue"]["keys"]])
        losses.append(info_nce(query[None], candidates, jnp.zeros(1, int), temperature=0.1)[0])
    np.testing.assert_allclose(loss, np.mean(losses), rtol=1e-4)


def test_a_step_moves_the_average_and_the_queue(method, variables, two_views):
    step = jax.jit(functools.partial(method.loss, stage=method.stages[0], train=True))
    ahead = {**variables, "params": jax.tree.map(lambda p: p + 1, variables["params"])}
    _, outputs = step(ahead, two_views, jax.random.key(0))
    before, after = (leaves(v["key_encoder"]["params"]) for v in (variables, outputs.collections))
    for name, old in before.items():
        np.testing.assert_allclose(after[name], old + 0.5, atol=1e-6)
    queue, old = outputs.collections["queue"], variables["queue"]["keys"]
    assert queue["next"] == 4
    np.testing.assert_array_equal(queue["keys"][4:], old[4:])
    assert not np.any(np.asarray(queue["keys"][:4]) == old[:4])
    again = step({**ahead, **outputs.collections}, two_views, jax.random.key(0))[1].collections
    assert again["queue"]["next"] == 0


@pytest.fixture(scope="module")
def uninterrupted(method, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run") / "whole"
    memory.run(workdir, method)
    return workdir


def test_average_and_queue_are_resumed_to_the_bit(method, uninterrupted, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        memory.run(tmp_path / "run", method, memory.Memory(stop_after=1))
    memory.run(tmp_path / "run", method)
    found, expected = (final_variables(w, method) for w in (tmp_path / "run", uninterrupted))
    assert found["queue"]["next"] == 0 and set(found) == {"params", "batch_stats", "key_encoder", "queue"}
    jax.tree.map(np.testing.assert_array_equal, found, expected)


@pytest.mark.parametrize("shard_state", [True, False])
def test_queues_are_split_over_devices_and_the_rest_where_asked(method, shard_state):
    wide = dataclasses.replace(method.config, queue=512)
    layout = Layout(jax.sharding.AbstractMesh((8,), ("data",)), shard_state)
    shapes = abstract_variables(type(method)(wide, 0), tiny.CLIP_SHAPE, Layout(make_mesh()))
    split = flax.traverse_util.flatten_dict(layout.state_shardings(shapes), sep="/")
    assert split["queue/keys"].spec == jax.P("data", None) and split["queue/next"].spec == jax.P()
    assert any("key_encoder/params" in name and tuple(s.spec) for name, s in split.items()) == shard_state


def config(sprites, *, jitter=True, **fields):
    whole = tiny_config.get_config().to_dict()
    whole["method"] = CONFIG
    whole["evaluation"] |= {"protocols": ("neighbours",), "figure_clips": 0}
    whole["data"] |= {"root": str(sprites), "jitter": jitter}
    return complete(whole | fields).to_dict()


def test_views_that_are_not_drawn_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"config\.data\.jitter must be on: stage 'contrast' draws its views"):
        run(config(tmp_path / "sprites", jitter=False), str(tmp_path / "run"), "train")


def test_it_trains_evaluates_and_exports_on_sprites(tmp_path):
    sprites, workdir = tmp_path / "sprites", tmp_path / "run"
    run(config(sprites), str(workdir), "train")
    results = json.loads((workdir / "results.json").read_text())
    assert set(results["knn"]) == {"backbone"} and "top1" not in results
    run(config(sprites), str(workdir), "export")
    exported = hcml_jax.load(workdir / "export")
    assert {c: set(trees) for c, trees in exported.variables.items()} == {
        "params": {"backbone"},
        "batch_stats": {"backbone"},
    }
    clips = np.zeros((1, 8, 32, 32, 3), np.uint8)
    np.testing.assert_array_equal(
        exported.features(clips)["backbone"], hcml_jax.load(workdir).features(clips)["backbone"]
    )
    # A key encoder follows from what a run starts from; a queue begins anew.
    started = {"init_from": {"path": str(workdir)}, "seed": 1}
    run(config(sprites, **started), str(tmp_path / "second"), "train")
    start, trained = hcml_jax.load(workdir).variables, None
    from hcml_jax.training.restore import positions, restore

    method = build_method(CONFIG, 4)
    abstract = abstract_variables(method, (8, 32, 32, 3), Layout(make_mesh()))
    second = tmp_path / "second"
    trained = restore(second, positions(method, second)["start"], abstract)
    jax.tree.map(np.testing.assert_array_equal, trained["params"], start["params"])
    jax.tree.map(np.testing.assert_array_equal, trained["key_encoder"]["params"], start["params"])
    assert trained["queue"]["next"] == 0
    found = json.loads((second / "results.json").read_text())
    assert found["untrained"]["knn"] == results["knn"]  # what the run started from
    assert set(found["random"]["knn"]) == {"backbone"}
