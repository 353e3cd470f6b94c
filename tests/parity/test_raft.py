"""RAFT against torchvision's, with the same random weights: flow after twelve updates, and gradients."""

import copy
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from hcml_jax.models.raft import RAFT
from hcml_jax.weights.import_weights import convert
from tests.parity.networks import torchvision
from tests.parity.pair import distance, randomise

optical_flow = torchvision.models.optical_flow
MAKERS = {"large": optical_flow.raft_large, "small": optical_flow.raft_small}
SHAPE = (1, 2, 128, 136, 3)


@functools.cache
def pair(size):
    torch.manual_seed(0)
    network = MAKERS[size](weights=None)
    for module in network.modules():
        randomise(module, 0)
    tensors = {name: tensor.numpy().copy() for name, tensor in network.state_dict().items()}
    imported = convert(tensors, f"raft_{size}")
    assert not imported.unused and not imported.missing
    return network.eval(), imported.variables


@pytest.fixture(scope="module")
def clip():
    """A smooth pattern that moves."""
    line = np.linspace(0, 9, SHAPE[3])
    frames = [np.sin(line + 0.3 * t)[None, :, None] * np.cos(2 * line[: SHAPE[2], None, None]) for t in range(2)]
    colours = np.random.default_rng(0).uniform(0.3, 1, (SHAPE[0], 1, 1, 1, 3))
    return np.broadcast_to(0.5 + 0.5 * np.stack(frames)[None] * colours, SHAPE).astype(np.float64)


def theirs(network, clip, updates):
    first, second = (torch.from_numpy(np.moveaxis(2 * clip[:, t] - 1, -1, 1).copy()) for t in range(2))
    return network(first, second, num_flow_updates=updates)[-1].movedim(1, -1)


@pytest.mark.parametrize("size", MAKERS)
def test_flow_after_twelve_updates_is_torchvisions(size, clip):
    network, variables = pair(size)
    expected = theirs(copy.deepcopy(network).float(), clip.astype(np.float32), 12).detach().numpy()
    given = {name: tree["raft"] for name, tree in variables.items()}
    assert distance(jax.jit(RAFT(size).apply)(given, clip.astype(np.float32))[:, 0], expected) < 1e-4


@pytest.mark.parametrize("size", MAKERS)
def test_gradients_after_twelve_updates_are_torchvisions(size, clip, monkeypatch):
    """In float64: in float32 some ReLU of a random network switches, and gradients are 1e-4 to 1e-3 apart."""
    cells = optical_flow.raft.make_coords_grid  # float32, whatever the network
    monkeypatch.setattr(optical_flow.raft, "make_coords_grid", lambda *given: cells(*given).double())
    network, variables = pair(size)
    network = copy.deepcopy(network).double()
    expected = theirs(network, clip, 12)
    weights = np.random.default_rng(1).normal(size=expected.shape)
    (expected * torch.from_numpy(weights)).sum().backward()

    def loss(params, stats, clip, weights):
        flow = RAFT(size).apply({"params": params, **stats}, clip)[:, 0]
        return (flow * weights).sum(), flow

    with jax.enable_x64(True):
        given = {name: tree["raft"] for name, tree in variables.items()}
        arguments = given.pop("params"), given, clip, weights
        arguments = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), arguments)
        gradients, flow = jax.device_get(jax.jit(jax.grad(loss, has_aux=True))(*arguments))
    assert distance(flow, expected.detach().numpy()) < 1e-6
    found = {name: parameter.grad.numpy() for name, parameter in network.named_parameters()}
    theirs_too = convert(found, f"raft_{size}", allow_missing=True).variables["params"]["raft"]
    assert distance(gradients, theirs_too) < 1e-6


def test_sides_that_do_not_divide_by_eight_are_cut_again(clip):
    _, variables = pair("small")
    given = {name: tree["raft"] for name, tree in variables.items()}
    odd = clip[:, :, :, :131].astype(np.float32)
    whole = np.pad(odd, [(0, 0), (0, 0), (0, 0), (0, 5), (0, 0)], mode="edge")
    apply = jax.jit(RAFT("small", updates=2).apply)
    np.testing.assert_allclose(apply(given, odd), apply(given, whole)[:, :, :, :131], rtol=1e-5, atol=1e-5)
