"""FIMA's losses against loops written from its equations, and which places are the same."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hcml_jax.contrastive import activation, foreground
from hcml_jax.methods.fima import pixel_positives
from hcml_jax.models import TrainMode
from tests.methods.fima import (
    ALONE,
    CELLS,
    CLIPS,
    SIDES,
    STILL,
    TIMES,
    Encodings,
    a_batch,
    boxes,
    built,
    loss_of,
    pooled,
    same_place,
)
from tests.methods.stages import begin, leaves, unit


@pytest.fixture(scope="module")
def method():
    return built()


@pytest.fixture(scope="module")
def batch(method):
    return a_batch(method)


@pytest.fixture(scope="module")
def variables(method):
    return begin(method, a_batch(method))


def nce(query, positives, others, tau=0.5):
    """-log of the share of the positives in the sum of exponentials of cosines."""
    above = sum(np.exp(unit(key) @ unit(query) / tau) for key in positives)
    below = sum(np.exp(unit(key) @ unit(query) / tau) for key in others)
    return -np.log(above / (above + below))


def positives_in(batch, b, one, other, foreground, sides=SIDES, threshold=0.7):
    """Cell of the one view -> cells of the other at its place; of those that count and have any."""
    first, second = foreground
    near = {
        i: {
            j
            for j in range(CELLS)
            if same_place(batch.box[b, [one, other]], (False, False), i, j, threshold)
            and ("target" not in sides or j in second[b])
        }
        for i in range(CELLS)
        if "prediction" not in sides or i in first[b]
    }
    return {i: cells for i, cells in near.items() if cells}


def pixel_loss(encodings, batch, one, other, decoded=True, sides=SIDES, others_of=None, threshold=0.7):
    """Eq. 8 from one view to the other; `others_of` are the pixels of other videos."""
    queries = encodings.pixels(encodings.decode(one, other)[0] if decoded else encodings.rgb[one])
    keys = encodings.pixels(encodings.difference[other])
    shown = encodings.foreground(one), encodings.foreground(other)
    of_clips = []
    for b in range(CLIPS):
        losses, others = [], None if others_of is None else list(others_of)
        if others is None:  # in groups of two clips; in validation all meet
            clips = [b + 1 - 2 * (b % 2)] if encodings.mode else [c for c in range(CLIPS) if c != b]
            others = [key for c in clips for key in keys[c].reshape(-1, keys.shape[-1])]
        near = positives_in(batch, b, one, other, shown, sides, threshold)
        for t, i in itertools.product(range(TIMES), near):
            positives = [keys[b, t, j] for j in near[i]]
            rest = [keys[b, s, j] for s, j in np.ndindex(TIMES, CELLS) if s != t or j not in near[i]]
            losses.append(nce(queries[b, t, i], positives, rest + others))
        if losses:
            of_clips.append(np.mean(losses))
    return np.mean(of_clips)


def other_rows(array, b):
    return [row for number, row in enumerate(array) if number != b]


@pytest.mark.parametrize("train", [True, False])
def test_terms_are_those_of_the_equations(variables, batch, train):
    """Negatives are the queue's; in validation, the other clips of the batch."""
    method = built(**STILL)
    loss, outputs = loss_of(method, train)(variables, batch, jax.random.key(7))
    assert train or outputs.collections == {}
    seen = Encodings(method, variables, batch, TrainMode(batch_norm_group=1) if train else False)
    queue = {name: list(np.asarray(variables["queue"][name]["keys"])) for name in ("instance", "frame")}
    expected = dict.fromkeys(("instance", "pixel", "frame"), 0.0)
    for one, other in ((0, 1), (1, 0)):
        queries, keys = (seen.project(pooled(seen.rgb[view])) for view in (one, other))
        others = [queue["instance"] if train else other_rows(keys, b) for b in range(CLIPS)]
        expected["instance"] += np.mean([nce(q, [k], o) for q, k, o in zip(queries, keys, others, strict=True)])
        expected["pixel"] += pixel_loss(seen, batch, one, other)
        tokens, parts = seen.project(seen.decode(one, other)[1]), seen.project(seen.parts[other])
        losses = []
        for b, t in np.ndindex(CLIPS, TIMES):
            others = queue["frame"] if train else [part for clip in other_rows(parts, b) for part in clip]
            losses.append(nce(tokens[b, t], [parts[b, t]], [parts[b, 1 - t], *others]))
        expected["frame"] += np.mean(losses)
    for name, value in expected.items():
        np.testing.assert_allclose(outputs.metrics[name], value, rtol=5e-4, err_msg=name)
    np.testing.assert_allclose(loss, sum(expected.values()), rtol=5e-4)
    assert outputs.metrics["pixel/matched"] == 1
    np.testing.assert_allclose(outputs.metrics["instance/chance"], 1 / 21 if train else 1 / 4)
    np.testing.assert_allclose(outputs.metrics["frame/chance"], 1 / 22 if train else 1 / 8)


def test_clips_of_one_video_are_no_negatives_of_each_other(variables, batch):
    """As where a small validation split fills up its batch."""
    method, keep = built(**STILL), np.array([0, 1, 2, 0])
    twice = jax.tree.map(lambda x: x[keep], batch)
    found = loss_of(method, train=False)(variables, twice, jax.random.key(0))[1].metrics["instance"]
    seen, expected = Encodings(method, variables, twice, False), 0.0
    for one, other in ((0, 1), (1, 0)):
        queries, keys = (seen.project(pooled(seen.rgb[view])) for view in (one, other))
        right = [[0, 3], [1], [2], [0, 3]]
        pairs = [(keys[rows], np.delete(keys, rows, 0)) for rows in right]
        expected += np.mean([nce(query, *pair) for query, pair in zip(queries, pairs, strict=True)])
    np.testing.assert_allclose(found, expected, rtol=5e-4)


def test_whether_places_and_parts_are_told_apart_inside_a_clip(method, variables, batch):
    """Among the keys of its own clip alone, whatever other clips hold."""
    metrics = loss_of(method, train=False)(variables, batch, jax.random.key(0))[1].metrics
    seen, parts, places = Encodings(method, variables, batch, False), [], []
    for one, other in ((0, 1), (1, 0)):
        tokens, keys = unit(seen.project(seen.decode(one, other)[1])), unit(seen.project(seen.parts[other]))
        parts += [np.argmax(keys[b] @ tokens[b, t]) == t for b, t in np.ndindex(CLIPS, TIMES)]
        queries, keys = unit(seen.pixels(seen.decode(one, other)[0])), unit(seen.pixels(seen.difference[other]))
        shown = seen.foreground(one), seen.foreground(other)
        for b in range(CLIPS):
            for i, near in positives_in(batch, b, one, other, shown).items():
                best = [np.unravel_index(np.argmax(keys[b] @ queries[b, t, i]), (TIMES, CELLS)) for t in range(TIMES)]
                places += [(s == t and j in near, len(near) / (TIMES * CELLS)) for t, (s, j) in enumerate(best)]
    right, chance = np.mean(places, axis=0)
    for name, expected in (("frame", np.mean(parts)), ("pixel", right)):
        np.testing.assert_allclose(metrics[f"{name}/top1_in_clip"], expected, rtol=1e-5)
    np.testing.assert_allclose(metrics["pixel/chance_in_clip"], chance, rtol=1e-5)
    assert metrics["frame/chance_in_clip"] == 0.5
    assert method.stages[0].chances["frame/top1_in_clip"] == "frame/chance_in_clip"


@pytest.mark.parametrize(
    "fields",
    [
        {"decoder": {"layers": 0}},
        {"foreground_on": ("target",)},
        {"foreground_on": ()},
        {"pixel_queue": 200},
        {"threshold": 1.4},
        {"background": 0.7},
        {"foreground_of": ("difference",)},
        {"first_difference": "wrap"},
    ],
    ids=str,
)
def test_what_the_pixel_loss_leaves_out(batch, fields):
    method = built(**STILL | ALONE | {"pixel_weight": 1.0} | fields)
    variables = begin(method, a_batch(method))
    metrics = loss_of(method, train=True)(variables, batch, jax.random.key(7))[1].metrics
    seen = Encodings(method, variables, batch, TrainMode(batch_norm_group=1))
    options = {"decoded": "decoder" not in fields, "sides": fields.get("foreground_on", SIDES)}
    if "pixel_queue" in fields:
        options["others_of"] = np.asarray(variables["queue"]["pixel"]["keys"])
    options["threshold"] = fields.get("threshold", 0.7)
    expected = sum(pixel_loss(seen, batch, *order, **options) for order in ((0, 1), (1, 0)))
    np.testing.assert_allclose(metrics["pixel"], expected, rtol=5e-4)


def test_places_that_only_one_view_shows_teach_nothing(batch):
    """Views far apart: no loss, no gradient, and the run is told of it."""
    apart = batch._replace(box=batch.box + np.float32([[[0], [1000]]]))
    only = built(**ALONE | {"pixel_weight": 1.0})
    variables = begin(only, a_batch(only))

    def loss(params, batch):
        return only.loss({**variables, "params": params}, batch, jax.random.key(0), only.stages[0], train=True)

    (value, outputs), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(variables["params"], apart)
    assert value == 0 and outputs.metrics["pixel/matched"] == 0
    assert all(np.all(g == 0) for g in leaves(gradient).values())
    assert only.stages[0].floors == {"pixel/matched": 0.1}
    half = batch._replace(box=np.where(np.arange(4)[:, None, None] < 2, batch.box, apart.box))
    found = loss(variables["params"], half)[1].metrics
    assert found["pixel/matched"] == 0.5


def test_same_places_are_those_of_brute_force():
    """Over 1,000 random pairs of boxes and flips."""
    pairs, rng = 1000, np.random.default_rng(1)
    box, flip = boxes(pairs, seed=1), rng.random((pairs, 2)) < 0.5
    for threshold in (0.35, 0.7, 2.8):
        given = box[:, 0], flip[:, 0], box[:, 1], flip[:, 1], (3, 3)
        found = np.asarray(
            jax.jit(pixel_positives, static_argnames=("grid", "threshold"))(
                *given[:4], grid=given[4], threshold=threshold
            )
        )
        expected = [
            [[same_place(box[n], flip[n], i, j, threshold) for j in range(9)] for i in range(9)] for n in range(pairs)
        ]
        assert np.mean(found != np.array(expected)) < 1e-4  # but for distances that round across the threshold


def test_the_same_view_matches_itself_and_a_mirrored_one_its_mirror_image():
    box, still = np.array([[3.0, 4.0, 12.0, 6.0]], np.float32), np.zeros(1, bool)
    np.testing.assert_array_equal(pixel_positives(box, still, box, still, (2, 3), threshold=0.3)[0], np.eye(6))
    mirrored = np.asarray(pixel_positives(box, still, box, ~still, (2, 3), threshold=0.3)[0])
    np.testing.assert_array_equal(mirrored.argmax(1), [2, 1, 0, 5, 4, 3])


def test_foreground_is_what_exceeds_the_quantile():
    maps = [np.random.default_rng(seed).random((3, 2, 7, 7, 5), np.float32) for seed in (0, 1)]
    strength = np.asarray(activation(maps))
    np.testing.assert_allclose(strength, sum(x.mean((1, 4)) for x in maps), rtol=1e-5)
    found = np.asarray(foreground(strength, 0.5))
    np.testing.assert_array_equal(found.sum((1, 2)), 24)  # of 49
    np.testing.assert_array_equal(found, strength > np.median(strength, axis=(1, 2), keepdims=True))
    assert np.asarray(foreground(strength, 0.3)).sum((1, 2)).tolist() == [34] * 3
    assert not foreground(jnp.ones((1, 7, 7)), 0.5).any()  # strict


def test_difference_contrast_is_that_of_pooled_differences(batch):
    one = built(**STILL | ALONE | {"difference_weight": 1.0})
    variables = begin(one, a_batch(one))
    metrics = loss_of(one, train=True)(variables, batch, jax.random.key(0))[1].metrics
    seen, expected = Encodings(one, variables, batch, TrainMode(batch_norm_group=1)), 0.0
    for first, second in ((0, 1), (1, 0)):
        queries, keys = (seen.project(pooled(x)) for x in (seen.rgb[first], seen.difference[second]))
        queue = list(np.asarray(variables["queue"]["difference"]["keys"]))
        expected += np.mean([nce(q, [k], queue) for q, k in zip(queries, keys, strict=True)])
    np.testing.assert_allclose(metrics["difference"], expected, rtol=5e-4)


@pytest.mark.parametrize("kind", ["mse", "triplet"])
def test_frames_may_be_compared_without_a_queue(batch, kind):
    one = built(**STILL | ALONE | {"frame_weight": 1.0, "frame_loss": kind})
    variables = begin(one, a_batch(one))
    metrics = loss_of(one, train=True)(variables, batch, jax.random.key(0))[1].metrics
    seen, expected, right = Encodings(one, variables, batch, TrainMode(batch_norm_group=1)), 0.0, []
    for first, second in ((0, 1), (1, 0)):
        tokens, parts = unit(seen.project(seen.decode(first, second)[1])), unit(seen.project(seen.parts[second]))
        losses = []
        for b, t in np.ndindex(CLIPS, TIMES):
            own, other = tokens[b, t] @ parts[b, t], tokens[b, t] @ parts[b, 1 - t]
            right.append(own > other)
            losses.append(np.sum((tokens[b, t] - parts[b, t]) ** 2) if kind == "mse" else max(0.5 + other - own, 0))
        expected += np.mean(losses)
    np.testing.assert_allclose(metrics["frame"], expected, rtol=5e-4)
    assert "frame/chance" not in metrics
    np.testing.assert_allclose(metrics["frame/top1_in_clip"], np.mean(right), rtol=1e-5)
