"""The motion decoder against the same built of PyTorch's attention, with the same random weights."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from hcml_jax.models import MotionDecoder, MotionDecoderConfig
from hcml_jax.models.motion_decoder import positions
from tests.parity.pair import distance

CONFIG = MotionDecoderConfig(dropout=0.0)
SHAPE = (2, 2, 7, 7, 64)


class Layer(torch.nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.attention = torch.nn.MultiheadAttention(width, heads, batch_first=True)
        self.norm_attention, self.norm_feed_forward = torch.nn.LayerNorm(width), torch.nn.LayerNorm(width)
        self.hidden, self.out = torch.nn.Linear(width, width), torch.nn.Linear(width, width)

    def forward(self, x, memory):
        x = x + self.attention(self.norm_attention(x), memory, memory, need_weights=False)[0]
        return x + self.out(torch.relu(self.hidden(self.norm_feed_forward(x))))


class Theirs(torch.nn.Module):
    def __init__(self, params):
        super().__init__()
        channels, width = params["down"]["kernel"].shape
        self.down, self.up = torch.nn.Linear(channels, width), torch.nn.Linear(width, channels)
        self.token = torch.nn.Parameter(torch.zeros(width))
        self.layers = torch.nn.ModuleList(Layer(width, CONFIG.heads) for _ in range(CONFIG.layers))
        places = SHAPE[2] * SHAPE[3]
        self.places = torch.from_numpy(positions(places, width))
        self.load_state_dict(dict(named(params)))

    def forward(self, queries, memory):
        queries, memory = (self.down(x.flatten(2, 3).flatten(0, 1)) + self.places for x in (queries, memory))
        x = torch.cat([self.token.expand(len(queries), 1, -1), queries], dim=1)
        for layer in self.layers:
            x = layer(x, memory)
        return self.up(x)


def named(params):
    """PyTorch's names, and tensors."""
    yield "token", torch.from_numpy(params["token"].copy())
    for name in ("down", "up"):
        yield from linear(name, params[name])
    for number in range(CONFIG.layers):
        layer, name = params[f"layer{number}"], f"layers.{number}"
        for part in ("hidden", "out"):
            yield from linear(f"{name}.{part}", layer[part])
        for part in ("norm_attention", "norm_feed_forward"):
            yield f"{name}.{part}.weight", torch.from_numpy(layer[part]["scale"].copy())
            yield f"{name}.{part}.bias", torch.from_numpy(layer[part]["bias"].copy())
        attention = layer["attention"]
        width = attention["query"]["bias"].size
        triple = [attention[part] for part in ("query", "key", "value")]
        kernel = np.concatenate([part["kernel"].reshape(width, width).T for part in triple])
        yield f"{name}.attention.in_proj_weight", torch.from_numpy(kernel)
        yield f"{name}.attention.in_proj_bias", torch.from_numpy(np.concatenate([p["bias"].ravel() for p in triple]))
        out = attention["out"]
        yield f"{name}.attention.out_proj.weight", torch.from_numpy(out["kernel"].reshape(width, width).T.copy())
        yield f"{name}.attention.out_proj.bias", torch.from_numpy(out["bias"].copy())


def linear(name, params):
    yield f"{name}.weight", torch.from_numpy(params["kernel"].T.copy())
    yield f"{name}.bias", torch.from_numpy(params["bias"].copy())


@pytest.fixture(scope="module")
def maps():
    rng = np.random.default_rng(0)
    return [rng.normal(size=SHAPE).astype(np.float32) for _ in range(2)]


@pytest.fixture(scope="module")
def variables(maps):
    init = jax.jit(functools.partial(MotionDecoder(CONFIG).init, train=False))
    rng = np.random.default_rng(1)
    return jax.tree.map(
        lambda x: np.asarray(x) + rng.normal(size=x.shape).astype(np.float32) / 50, init(jax.random.key(0), *maps)
    )


def test_what_is_decoded_and_its_gradients_are_pytorchs(maps, variables):
    def ours(queries, memory):
        places, token = MotionDecoder(CONFIG).apply(variables, queries, memory, True)
        rows = jnp.concatenate([token[..., None, :], places.reshape(*SHAPE[:2], -1, SHAPE[-1])], axis=2)
        return jnp.sum(jnp.sin(rows)), rows

    (_, rows), gradients = jax.jit(jax.value_and_grad(ours, (0, 1), has_aux=True))(*maps)
    given = [torch.from_numpy(x.copy()).requires_grad_() for x in maps]
    expected = Theirs(variables["params"])(*given).reshape(rows.shape)
    expected.sin().sum().backward()
    assert distance(rows, expected.detach().numpy()) < 1e-5
    for found, wanted in zip(gradients, given, strict=True):
        assert distance(found, wanted.grad.numpy()) < 1e-5
