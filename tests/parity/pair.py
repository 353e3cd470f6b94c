"""A network in PyTorch and ours, with the same random weights."""

import copy
import functools
from typing import NamedTuple

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import torch

from hcml_jax.models import build_backbone
from hcml_jax.weights.import_weights import convert
from hcml_jax.weights.published import published_layouts
from tests.parity.networks import NETWORKS, OPTIONS

NORMS = (torch.nn.BatchNorm2d, torch.nn.BatchNorm3d)


class Step(NamedTuple):
    """What a network gives: scores `[B, classes]`; by published name, gradients of a weighted sum of the scores, and
    the moving statistics afterwards.
    """

    scores: np.ndarray
    gradients: dict[str, np.ndarray]
    statistics: dict[str, np.ndarray]


def distance(found, expected):
    """The norm of the difference over that of `expected`, of arrays or of dicts of them."""
    found, expected = jax.tree.leaves(found), jax.tree.leaves(expected)
    pairs = zip(found, expected, strict=True)
    off = sum(np.square(np.subtract(a, b, dtype=np.float64)).sum() for a, b in pairs)
    return np.sqrt(off / sum(np.square(b, dtype=np.float64).sum() for b in expected))


def randomise(module, bias):
    """Random statistics, scales and biases, of this mean, of a batch normalisation; anything else stays."""
    if not isinstance(module, NORMS):
        return
    module.running_mean.normal_(0, 0.1)
    module.running_var.uniform_(0.5, 2)
    torch.nn.init.uniform_(module.weight, 0.5, 1.5)
    torch.nn.init.normal_(module.bias, bias, 0.3)


class Pair:
    """A network in PyTorch with random weights and statistics, and ours with the same, imported.

    Attributes:
      kept: running variance's name -> what a step keeps of it.
      counts: running variance's name -> over how many values PyTorch's last step took it.
    """

    def __init__(self, name, bias):
        """`bias` is the mean of the normalisations' biases: 0 has ReLUs cut half of what they see, 3 hardly any."""
        make, shape = NETWORKS[name]
        torch.manual_seed(0)
        self.name, self.arch, self.torch = name, name.split("/")[0], make()
        self.options = OPTIONS.get(name, {})
        self.kept, self.counts = {}, {}
        for path, module in self.torch.named_modules():
            randomise(module, bias)
            if isinstance(module, NORMS):
                self.kept[f"{path}.running_var"] = 1 - module.momentum
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        tensors = {key: tensor.numpy().copy() for key, tensor in self.torch.state_dict().items()}
        imported = convert(tensors, self.arch, **self.options)
        assert not imported.unused
        assert not imported.missing
        self.variables = imported.variables
        self.layout = next(layout for layout in published_layouts(self.arch) if layout.source == imported.source)
        rng = np.random.default_rng(1)
        self.clip = rng.normal(size=shape)
        self.weights = rng.normal(size=(shape[0], imported.classes))

    def ours(self, dtype, train):
        """A step of ours."""
        backbone = build_backbone(self.arch, dtype=dtype, **self.options)

        def loss(params, stats, clip, weights):
            variables = {"params": params["backbone"], **stats}
            (embedding, _), state = backbone.apply(variables, clip, train, mutable=["batch_stats"])
            logits = params["classifier"]["logits"]
            scores = embedding @ logits["kernel"] + logits["bias"]
            return (scores * weights).sum(), (scores, state)

        stats = {key: tree["backbone"] for key, tree in self.variables.items() if key != "params"}
        arguments = (self.variables["params"], stats, self.clip, self.weights)
        with jax.enable_x64(dtype == jnp.float64):
            arguments = jax.tree.map(lambda x: jnp.asarray(x, dtype), arguments)
            gradients, (scores, state) = jax.jit(jax.grad(loss, has_aux=True))(*arguments)
            statistics = self._published(state.get("batch_stats", {}))
            return Step(np.asarray(scores), self._published(gradients), statistics)

    def _published(self, tree):
        """A tree of variables by published name."""
        flat = flax.traverse_util.flatten_dict(tree).items()
        paths = {path[path[0] == "backbone" :]: np.asarray(array) for path, array in flat}
        return {self.layout.name(p): self.layout.export(p, a) for p, a in paths.items()}

    def theirs(self, dtype, train):
        """A step of PyTorch's."""
        network = copy.deepcopy(self.torch).to(dtype).train(train)
        clip = torch.from_numpy(np.moveaxis(self.clip, -1, 1).copy()).to(dtype)
        for path, module in network.named_modules():
            if isinstance(module, NORMS):
                module.register_forward_pre_hook(functools.partial(self._count, path))
        if self.layout.two_d:
            frames = clip.movedim(2, 1).flatten(0, 1)
            scores = network(frames).unflatten(0, self.clip.shape[:2]).mean(1)
        else:
            scores = network(clip)
        (scores * torch.from_numpy(self.weights).to(dtype)).sum().backward()
        gradients = {name: p.grad.numpy() for name, p in network.named_parameters()}
        return Step(scores.detach().numpy(), gradients, self.statistics(network))

    def _count(self, path, module, inputs):
        self.counts[f"{path}.running_var"] = inputs[0].numel() // module.num_features

    def statistics(self, network=None):
        """The moving statistics of PyTorch's, by default as they begin."""
        buffers = (network or self.torch).named_buffers()
        return {name: buffer.numpy().copy() for name, buffer in buffers if "running" in name}
