"""Published weights in and out: every tensor accounted for, clear errors, nothing half-written."""

import dataclasses
import json
import re

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from hcml_jax.models import BACKBONES, build_backbone
from hcml_jax.weights import published
from hcml_jax.weights.export_weights import save_tensors
from hcml_jax.weights.import_weights import convert, import_weights, main, read_imported
from hcml_jax.weights.published import published_layouts
from hcml_jax.weights.torch_files import WeightsError

PUBLISHED = [name for name in BACKBONES if published_layouts(name)]


def random_variables(arch, classes=5):
    """Of the backbone and a classifier, without running it."""
    model = build_backbone(arch)
    clip = jax.ShapeDtypeStruct((1, 16, 112, 112, 3), jnp.float32)
    (embedding, _), abstract = jax.eval_shape(lambda x: model.init_with_output(jax.random.key(0), x, False), clip)
    rng = np.random.default_rng(0)

    def numbers(leaf):
        count = np.prod(leaf.shape, dtype=int)
        return rng.integers(-99, 99, count).astype(np.float32).reshape(leaf.shape)

    variables = {name: {"backbone": jax.tree.map(numbers, tree)} for name, tree in abstract.items()}
    kernel = numbers(np.empty((embedding.shape[-1], classes)))
    logits = {"kernel": kernel, "bias": np.arange(classes, dtype=np.float32)}
    variables["params"]["classifier"] = {"logits": logits}
    return variables


@pytest.fixture(scope="module")
def tensors(tmp_path_factory):
    """ResNet-10's by published name."""
    path = tmp_path_factory.mktemp("weights") / "resnet_10.safetensors"
    save_tensors(path, "resnet_10", random_variables("resnet_10"))
    return safetensors.numpy.load_file(path)


def save(path, tensors):
    safetensors.numpy.save_file({k: np.ascontiguousarray(v) for k, v in tensors.items()}, path)
    return path


@pytest.mark.parametrize("arch", ["resnet_10", "r3d_18", "r2plus1d_18", "s3d", "i3d", "resnet3d_18_a"])
def test_what_is_exported_is_imported_again(tmp_path, arch):
    variables = random_variables(arch)
    save_tensors(tmp_path / "file.safetensors", arch, variables)
    imported = import_weights(tmp_path / "file.safetensors", arch, tmp_path / "out")
    assert imported.classes == 5
    found, (mean, std) = read_imported(tmp_path / "out")
    jax.tree.map(np.testing.assert_array_equal, found, variables)
    (layout, *_) = published_layouts(arch)
    assert (mean, std) == (layout.mean, layout.std)
    described = json.loads((tmp_path / "out" / "weights.json").read_text())
    assert described["arch"] == arch
    assert described["unused"] == described["missing"] == []


@pytest.mark.parametrize("arch", PUBLISHED)
def test_every_variable_has_a_published_name_of_its_own(arch):
    model = build_backbone(arch)
    clip = jax.ShapeDtypeStruct((1, 16, 112, 112, 3), jnp.float32)
    abstract = jax.eval_shape(lambda x: model.init(jax.random.key(0), x, False), clip)
    paths = [path[1:] for path in flax.traverse_util.flatten_dict(abstract)]
    for layout in published_layouts(arch):
        names = [layout.name(path) for path in paths]
        assert len(set(names)) == len(paths)
        own = {part for path in paths for part in path if part.startswith(("res", "mixed"))}
        assert not any(part in name.split(".") for name in names for part in own)


def test_motion_blocks_are_exported_under_their_own_names(tmp_path):
    block = {"reduce": {"conv": {"kernel": np.zeros((1, 1, 1, 8, 2), np.float32)}}}
    variables = random_variables("resnet_10")
    variables["params"]["backbone"]["level0"] = block
    save_tensors(tmp_path / "file.safetensors", "resnet_10", variables)
    found = safetensors.numpy.load_file(tmp_path / "file.safetensors")
    assert found["level0.reduce.conv.weight"].shape == (2, 8, 1, 1, 1)


def test_counters_are_ignored_and_listed(tensors):
    imported = convert({**tensors, "bn1.num_batches_tracked": np.array(3)}, "resnet_10")
    assert imported.ignored == ("bn1.num_batches_tracked",)
    assert not imported.unused


def test_unused_tensors_are_an_error_unless_allowed(tmp_path, tensors):
    path = save(tmp_path / "a.safetensors", {**tensors, "extra.weight": np.zeros(3)})
    with pytest.raises(WeightsError, match=r"no place for 1 of its.*--allow-unused.*extra\.weight"):
        import_weights(path, "resnet_10", tmp_path / "out")
    assert list(tmp_path.iterdir()) == [path]
    imported = import_weights(path, "resnet_10", tmp_path / "out", allow_unused=True)
    assert imported.unused == ("extra.weight",)


def test_missing_tensors_are_an_error_unless_allowed(tmp_path, tensors):
    lacking = {k: v for k, v in tensors.items() if k not in ("bn1.weight", "fc.bias")}
    path = save(tmp_path / "a.safetensors", lacking)
    with pytest.raises(WeightsError, match=r"lacks 2 of 62 tensors.*--allow-missing.*bn1\.weight"):
        import_weights(path, "resnet_10", tmp_path / "out")
    assert list(tmp_path.iterdir()) == [path]
    imported = import_weights(path, "resnet_10", tmp_path / "out", allow_missing=True)
    assert set(imported.missing) == {"bn1.weight", "fc.bias"}
    fresh = read_imported(tmp_path / "out")[0]["params"]
    np.testing.assert_array_equal(fresh["backbone"]["stem"]["norm"]["scale"], np.ones(64))
    np.testing.assert_array_equal(fresh["classifier"]["logits"]["bias"], np.zeros(5))


def test_a_file_without_a_classifier_gives_a_backbone_alone(tensors):
    imported = convert({k: v for k, v in tensors.items() if not k.startswith("fc")}, "resnet_10")
    assert imported.classes == 0
    assert set(imported.variables["params"]) == {"backbone"}


@pytest.mark.parametrize(
    ("arch", "message"),
    [
        ("r3d_18", "looks like another network's than r3d_18; there is no place for 45"),
        ("resnet3d_10", r"conv1\.weight is \[64, 64, 3, 3\].*another network's"),
        ("r2plus1d_101", "no weights of 'r2plus1d_101' are published"),
        ("i3d", "none of the tensors has a name of i3d's"),
    ],
)
def test_weights_of_another_network_are_refused(tmp_path, tensors, arch, message):
    path = save(tmp_path / "a.safetensors", tensors)
    with pytest.raises(WeightsError, match=message):
        import_weights(path, arch, tmp_path / "out")
    assert list(tmp_path.iterdir()) == [path]


def test_a_kernel_of_as_many_numbers_but_another_shape_is_refused(tensors):
    turned = {**tensors, "conv1.weight": tensors["conv1.weight"].reshape(64, 3, 49, 1)}
    with pytest.raises(WeightsError, match=r"conv1\.weight is \[64, 3, 49, 1\]"):
        convert(turned, "resnet_10")


def test_the_command_says_what_names_leave_open_and_takes_the_answer(tmp_path, tensors, capsys, monkeypatch):
    cautions = {name: layout.caution for name in PUBLISHED for layout in published_layouts(name)}
    assert {name for name in cautions if cautions[name]} == {"resnet3d_50", "resnet3d_101", "resnet3d_152"}
    (layout,) = published_layouts("resnet_10")
    told = dataclasses.replace(layout, caution=cautions["resnet3d_50"])
    monkeypatch.setitem(published._FAMILIES, "resnet_", (told,))
    path = save(tmp_path / "a.safetensors", tensors)
    arguments = [str(path), "--arch", "resnet_10", "--out"]
    main([*arguments, str(tmp_path / "2020")])
    said = capsys.readouterr().out
    answer = re.search(r"caution: files of 2018 have the same names.*(--mean.*)", said)[1].split()
    main([*arguments, str(tmp_path / "2018"), *answer])
    assert "caution" not in capsys.readouterr().out
    _, normalisation = read_imported(tmp_path / "2018")
    (of_2018,) = published_layouts("resnext3d_101")
    np.testing.assert_allclose(normalisation, (of_2018.mean, of_2018.std), rtol=1e-5)
    with pytest.raises(SystemExit):
        main([*arguments, str(tmp_path / "other"), "--mean", "0", "0", "0"])
    assert "--mean and --std belong together" in capsys.readouterr().err


def test_the_command_says_what_it_read_and_ends_in_one_line(tmp_path, tensors, capsys):
    path = save(tmp_path / "a.safetensors", tensors)
    arguments = [str(path), "--arch", "resnet_10", "--out", str(tmp_path / "out")]
    main(arguments)
    assert "resnet_10 from torchvision's names, 4,908,357 parameters, 5 classes" in capsys.readouterr().out
    with pytest.raises(SystemExit, match=r"out is there already"):
        main(arguments)
    with pytest.raises(SystemExit, match=r"'resnet_11'.*Did you mean 'resnet_1"):
        main([str(path), "--arch", "resnet_11", "--out", str(tmp_path / "other")])
    with pytest.raises(SystemExit, match=r"missing\.pth"):
        main([str(tmp_path / "missing.pth"), "--arch", "r3d_18", "--out", str(tmp_path / "other")])
    assert not (tmp_path / "other").exists()
