"""Starting from imported weights: what is taken, what stays fresh, what does not fit."""

import pathlib
import shutil

import flax.traverse_util
import jax
import numpy as np
import pytest

from hcml_jax.config import ConfigError
from hcml_jax.init_from import InitFrom, read_start
from hcml_jax.weights.export_weights import save_tensors
from hcml_jax.weights.import_weights import import_weights
from tests.methods import tiny
from tests.weights.test_weights import random_variables


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """ResNet-10's with a classifier of five classes, imported."""
    folder = tmp_path_factory.mktemp("weights")
    save_tensors(folder / "file.safetensors", "resnet_10", random_variables("resnet_10"))
    import_weights(folder / "file.safetensors", "resnet_10", folder / "imported")
    return str(folder / "imported")


def method(num_classes=5, **backbone):
    return tiny.hcml(num_classes, backbone={**tiny.BACKBONE, "width": 0, **backbone})


def start(weights, *prefixes, **options):
    here = method(**options)
    abstract = jax.eval_shape(here.init, jax.random.key(0), tiny.batch())
    return read_start(InitFrom(weights, prefixes), abstract, here.normalisation)


def flat(variables):
    return flax.traverse_util.flatten_dict(variables, sep="/")


def test_every_array_of_the_folder_is_taken_and_the_rest_stays(weights):
    begin, fresh = start(weights), tiny.init(method())
    before, after, given = flat(fresh), flat(begin(fresh)), flat(random_variables("resnet_10"))
    assert given.keys() < after.keys() == before.keys()
    for name, array in after.items():
        np.testing.assert_array_equal(array, given.get(name, before[name]), err_msg=name)
    parts = [f"{owner}/level{n}" for owner in ("backbone", "heads") for n in range(3)]
    assert f"62 arrays; fresh: {', '.join(parts)}" in str(begin)


def test_clips_normalised_otherwise_are_told_of(weights):
    imagenet = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
    assert "(0.485, 0.456, 0.406)" in str(start(weights))
    assert "caution" in str(start(weights, std=imagenet["std"]))
    assert "caution" not in str(start(weights, **imagenet))
    assert "caution" not in str(start(weights, "classifier"))


def test_prefixes_choose(weights):
    begin, fresh = start(weights, "backbone/stem", "backbone/res2"), tiny.init(method())
    before, after = flat(fresh), flat(begin(fresh))
    changed = {n for n in after if not np.array_equal(before[n], after[n])}
    assert {"/".join(name.split("/")[1:3]) for name in changed} == {"backbone/stem", "backbone/res2"}
    assert "params/backbone/res2/block0/conv1/conv/kernel" in changed
    assert "batch_stats/backbone/res2/block0/conv1/norm/mean" in changed


@pytest.mark.parametrize(
    ("prefixes", "options", "message"),
    [
        ((), {"num_classes": 3}, r"a classifier of other classes.*bias is \[5\] there, \[3\] here.*prefixes"),
        ((), {"num_classes": 0}, r"holds classifier/logits.*no place.*prefixes"),
        (("backbone",), {"name": "r2d_18"}, r"lacks backbone/res2/block1.*another backbone's"),
        (("backbone",), {"width": 8}, r"other shapes: backbone/.* there, .* here"),
        (("backbone",), {"name": "r3d_18"}, r"other shapes: backbone/.* there, .* here"),
        (("backbone/res2/block0/conv1",), {}, r"lacks backbone/res2/.*less than a part"),
        (("backbone/res6",), {}, r"nothing under 'backbone/res6'. Did you mean 'backbone/res"),
        (("back",), {}, r"nothing under 'back'"),
    ],
)
def test_what_does_not_fit_is_refused(weights, prefixes, options, message):
    with pytest.raises(ConfigError, match=message):
        start(weights, *prefixes, **options)


def test_prefixes_without_a_folder_are_refused():
    with pytest.raises(ConfigError, match=r"\('backbone',\) and stage .* choose from a folder"):
        InitFrom(prefixes=("backbone",))


def test_a_damaged_folder_is_refused(weights, tmp_path):
    (tmp_path / "weights.json").write_text("{}")
    (tmp_path / "variables.safetensors").write_bytes(b"12345678901")
    with pytest.raises(ConfigError, match=r"variables\.safetensors is damaged.*import"):
        start(str(tmp_path))
    shutil.copy(pathlib.Path(weights) / "variables.safetensors", tmp_path)
    for damage in ("{", "[]", '{"mean": [0, 0], "std": [1, 1]}'):
        (tmp_path / "weights.json").write_text(damage)
        with pytest.raises(ConfigError, match=r"weights\.json is damaged.*import"):
            start(str(tmp_path))
