"""Backbones against PyTorch's with the same random weights: scores, gradients, moving statistics.

In float64 they agree to rounding, which holds every formula. In float32, ReLUs and max-pools switch where two programs
round differently, which moves gradients by far more than rounding: seen up to 9e-4, more on one processor than on
another. Biases keep most ReLUs from it. The bound lies below the rounding of bfloat16, 2^-8.
"""

import importlib.util

import pytest

for package in ("torch", "torchvision", "pytorchvideo"):
    if importlib.util.find_spec(package) is None:
        pytest.skip("compares with PyTorch: `make test-parity` installs it", allow_module_level=True)

import jax.numpy as jnp
import numpy as np
import safetensors.torch
import torch

from hcml_jax.weights.export_weights import save_tensors
from hcml_jax.weights.torch_files import read_tensors
from tests.parity.networks import NETWORKS, torchvision
from tests.parity.pair import Pair, distance

EXACT = 1e-9  # float64
SCORES, GRADIENTS = 1e-5, 3e-3  # float32


@pytest.mark.parametrize("name", NETWORKS)
def test_in_float64_a_training_step_is_pytorchs(name):
    pair = Pair(name, bias=0)
    expected = pair.theirs(torch.float64, train=True)
    found = pair.ours(jnp.float64, train=True)
    assert distance(found.scores, expected.scores) < EXACT
    assert found.gradients.keys() == expected.gradients.keys()
    for key, gradient in expected.gradients.items():
        atol = 1e-7 * np.abs(gradient).max()
        np.testing.assert_allclose(found.gradients[key], gradient, atol=atol, err_msg=key)
    assert distance(found.gradients, expected.gradients) < EXACT
    check_statistics(pair, found.statistics, expected.statistics)


def check_statistics(pair, found, expected):
    """PyTorch's variances move to n / (n - 1) of the batch's; ours to the batch's, as TensorFlow's do."""
    before = pair.statistics()
    assert found.keys() == expected.keys() == before.keys()
    for key, theirs in expected.items():
        kept, count = 0.0, np.inf
        if key.endswith("running_var"):
            kept, count = pair.kept[key] * before[key], pair.counts[key]
        moved = kept + (theirs - kept) * (1 - 1 / count)
        np.testing.assert_allclose(found[key], moved, rtol=1e-7, atol=1e-9, err_msg=key)


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("name", NETWORKS)
def test_in_float32_scores_and_gradients_are_pytorchs(name, train):
    pair = Pair(name, bias=3)
    exact = pair.theirs(torch.float64, train)
    expected, found = pair.theirs(torch.float32, train), pair.ours(jnp.float32, train)
    assert distance(found.scores, expected.scores) < SCORES
    own = distance(expected.gradients, exact.gradients)
    off = distance(found.gradients, exact.gradients)
    assert off < max(GRADIENTS, 5 * own)


@pytest.mark.parametrize("name", ["resnet_18", "r3d_18", "s3d"])
def test_what_is_exported_loads_into_pytorchs_network(name, tmp_path):
    pair = Pair(name, bias=0)
    save_tensors(tmp_path / "file.safetensors", pair.arch, pair.variables)
    tensors = safetensors.torch.load_file(tmp_path / "file.safetensors")
    network = NETWORKS[name][0]()
    network.load_state_dict(tensors, strict=True)
    for key, tensor in pair.torch.state_dict().items():
        if not key.endswith("num_batches_tracked"):
            torch.testing.assert_close(network.state_dict()[key], tensor, rtol=0, atol=0)


@pytest.mark.parametrize("legacy", [False, True])
def test_files_that_pytorch_writes_are_read(tmp_path, legacy):
    saved = {
        "state_dict": torchvision.models.resnet18().state_dict(),
        "transposed": torch.zeros(3),
        "epoch": 3,
        "best": np.float64(0.5),
        "optimizer": torch.optim.SGD([torch.zeros(2, requires_grad=True)], 0.1).state_dict(),
    }
    saved["state_dict"]["half"] = torch.arange(6).reshape(2, 3).T.to(torch.bfloat16)
    torch.save(saved, tmp_path / "file.pth", _use_new_zipfile_serialization=not legacy)
    found = read_tensors(tmp_path / "file.pth")
    assert found.keys() == saved["state_dict"].keys()
    for key, tensor in saved["state_dict"].items():
        np.testing.assert_array_equal(found[key].astype(np.float32), tensor.float().numpy())
