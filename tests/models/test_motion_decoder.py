"""The motion decoder against plain loops; tests/parity holds it to PyTorch's attention."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hcml_jax.config import ConfigError
from hcml_jax.models import MotionDecoder, MotionDecoderConfig
from hcml_jax.models.motion_decoder import positions

SMALL = MotionDecoderConfig(width=8, layers=2, heads=2)
GRID = (2, 3)


def maps(seed, shape=(2, 2, *GRID, 5)):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def begin(config=SMALL):
    """Random weights, the token's too."""
    variables = jax.jit(functools.partial(MotionDecoder(config).init, train=False))(jax.random.key(0), maps(0), maps(1))
    rng = np.random.default_rng(7)
    return jax.tree.map(lambda x: x + rng.normal(size=x.shape).astype(np.float32) / 4, variables)


def normalised(x, weights):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt(np.square(centred).mean(-1, keepdims=True) + 1e-5) * weights["scale"] + weights["bias"]


def dense(x, weights):
    kernel = weights["kernel"]
    flat = kernel.reshape(x.shape[-1], -1) if kernel.ndim == 3 and kernel.shape[0] == x.shape[-1] else kernel
    return x @ flat.reshape(x.shape[-1], -1) + weights["bias"].reshape(-1)


def attended(x, memory, weights, heads):
    query, key, value = (dense(y, weights[name]) for y, name in ((x, "query"), (memory, "key"), (memory, "value")))
    size, found = query.shape[-1] // heads, []
    for head in range(heads):
        own = slice(head * size, (head + 1) * size)
        scores = np.exp(query[:, own] @ key[:, own].T / np.sqrt(size))
        found.append(scores / scores.sum(1, keepdims=True) @ value[:, own])
    return dense(np.concatenate(found, axis=1), weights["out"])


def by_hand(variables, queries, memory, config):
    """Of one map `[H, W, C]` and one memory: of each place and of the token."""
    params = jax.tree.map(lambda x: np.asarray(x, np.float64), variables["params"])
    places = np.zeros((queries.shape[0] * queries.shape[1], config.width))
    for place, number in np.ndindex(len(places), config.width // 2):
        angle = place / 10_000 ** (2 * number / config.width)
        places[place, 2 * number : 2 * number + 2] = np.sin(angle), np.cos(angle)
    rows, memory = (dense(x.reshape(len(places), -1), params["down"]) + places for x in (queries, memory))
    x = np.concatenate([params["token"][None], rows])
    for number in range(config.layers):
        layer = params[f"layer{number}"]
        x = x + attended(normalised(x, layer["norm_attention"]), memory, layer["attention"], config.heads)
        y = np.maximum(dense(normalised(x, layer["norm_feed_forward"]), layer["hidden"]), 0)
        x = x + dense(y, layer["out"])
    x = dense(x, params["up"])
    return x[1:].reshape(queries.shape), x[0]


@pytest.mark.parametrize(("dtype", "error"), [("float32", 1e-4), ("bfloat16", 0.1)])
def test_it_decodes_as_the_definition_does(dtype, error):
    variables = begin()
    decode = jax.jit(functools.partial(MotionDecoder(SMALL, jnp.dtype(dtype)).apply, train=False))
    places, token = decode(variables, maps(0), maps(1))
    assert places.dtype == token.dtype == jnp.float32
    for clip, time in np.ndindex(2, 2):
        expected = by_hand(variables, maps(0)[clip, time], maps(1)[clip, time], SMALL)
        for found, wanted in zip((places[clip, time], token[clip, time]), expected, strict=True):
            np.testing.assert_allclose(found, wanted, atol=error * np.abs(wanted).max())


def test_the_token_begins_at_nothing_and_sees_the_memory_alone():
    decoder = MotionDecoder(SMALL)
    variables = decoder.init(jax.random.key(0), maps(0), maps(1), False)
    np.testing.assert_array_equal(variables["params"]["token"], 0)
    found = [decoder.apply(begin(), maps(seed), maps(1), False)[1] for seed in (0, 5)]
    np.testing.assert_array_equal(*found)
    assert np.any(np.asarray(decoder.apply(begin(), maps(0), maps(5), False)[1]) != found[0])


def test_features_are_dropped_in_training_alone():
    decode = jax.jit(MotionDecoder(SMALL).apply, static_argnums=3)
    runs = [decode(begin(), maps(0), maps(1), True, rngs={"dropout": jax.random.key(k)})[0] for k in (0, 0, 1)]
    np.testing.assert_array_equal(runs[0], runs[1])
    assert np.any(np.asarray(runs[0]) != runs[2])
    still = MotionDecoder(MotionDecoderConfig(width=8, heads=2, dropout=0.0))
    found = still.apply(begin(), maps(0), maps(1), True)[0]
    np.testing.assert_allclose(found, decode(begin(), maps(0), maps(1), False)[0], rtol=1e-5)


def test_the_papers_decoder_has_4_2_million_parameters():
    given = jax.ShapeDtypeStruct((1, 7, 7, 1024), jnp.float32)
    shapes = jax.eval_shape(lambda x: MotionDecoder().init(jax.random.key(0), x, x, False), given)["params"]
    layer = 4 * (512 * 512 + 512) + 2 * (512 * 512 + 512) + 4 * 512
    assert sum(x.size for x in jax.tree.leaves(shapes)) == 2 * layer + 2 * 1024 * 512 + 1024 + 512 + 512


def test_places_have_sines_and_cosines_of_their_own():
    found = positions(49, 512)
    assert found.shape == (49, 512) and len(np.unique(found.round(4), axis=0)) == 49
    np.testing.assert_array_equal(found[0, ::2], 0)
    assert positions(3, 5).shape == (3, 5)


@pytest.mark.parametrize("fields", [{"heads": 3}, {"layers": -1}, {"dropout": 1.0}, {"width": 0}])
def test_wrong_sizes_are_named(fields):
    with pytest.raises(ConfigError, match="must be"):
        MotionDecoderConfig(**{"width": 8, **fields})
