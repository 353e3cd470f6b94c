"""FIMA: its losses against loops, what a step moves, which places are the same, and what is refused."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hcml_jax import augment
from hcml_jax.config import ConfigError
from hcml_jax.contrastive import activation, foreground
from hcml_jax.methods import build_method
from hcml_jax.methods.fima import pixel_positives
from hcml_jax.models import TrainMode
from hcml_jax.ops import frame_difference
from hcml_jax.rng import stream
from tests.methods import tiny
from tests.methods.stages import begin, leaves, unit
from tests.training import memory
from tests.training.test_loop import final_variables

CONFIG = {
    "name": "fima",
    "backbone": {**tiny.BACKBONE, "width": 4, "motion": {}, "temporal_strides": (1, 2, 1, 1)},
    "hidden": 8,
    "channels": 6,
    "decoder": {"width": 8, "heads": 2},
    "temperature": 0.5,
    "queue": 20,
    "pixel_group": 2,
    "momentum": 0.5,
    "batch_norm_group": 2,
    "stages": {"contrast": tiny.schedule(4)},
}
STILL = {
    "flip": False,
    "photometric": {"jitter": 0.0, "grayscale": 0.0, "blur": 0.0},
    "batch_norm_group": 1,
    "decoder": {"width": 8, "heads": 2, "dropout": 0.0},
}
ALONE = dict.fromkeys(("instance_weight", "difference_weight", "pixel_weight", "frame_weight"), 0.0)
SIDES = ("prediction", "target")
CLIP_SHAPE, VIDEO = (8, 48, 48, 3), 60.0  # maps of 2 times and 3 x 3 places; pixels of the video
CELLS, TIMES, CLIPS = 9, 2, 4


def built(**fields):
    return build_method(CONFIG | fields, 0)


def boxes(number, seed=0):
    """(top, left, height, width) inside the video."""
    rng = np.random.default_rng(seed)
    sides = rng.uniform(0.4, 0.9, (number, 2, 2)) * VIDEO
    corners = rng.random((number, 2, 2)) * (VIDEO - sides)
    return np.concatenate([corners, sides], axis=-1).astype(np.float32)


def a_batch(method, seed=0, clips=CLIPS, clip_shape=CLIP_SHAPE):
    given = tiny.batch(clips, seed, clip_shape, reads=method.stages[0].reads)
    return given._replace(box=boxes(clips, seed))


def loss_of(method, train):
    """Not compiled as a whole: what encodes is a program of its own, the same one for most methods here."""
    return functools.partial(method.loss, stage=method.stages[0], train=train)


@pytest.fixture(scope="module")
def method():
    return built()


@pytest.fixture(scope="module")
def batch(method):
    return a_batch(method)


@pytest.fixture(scope="module")
def variables(method):
    return begin(method, a_batch(method))


def pooled(maps):
    return np.asarray(maps).mean((1, 2, 3))


def nce(query, positives, others, tau=0.5):
    """-log of the share of the positives in the sum of exponentials of cosines."""
    above = sum(np.exp(unit(key) @ unit(query) / tau) for key in positives)
    below = sum(np.exp(unit(key) @ unit(query) / tau) for key in others)
    return -np.log(above / (above + below))


def centre(box, flip, cell, side=3):
    row, column = divmod(cell, side)
    column = side - 1 - column if flip else column
    return np.array([box[0] + (row + 0.5) * box[2] / side, box[1] + (column + 0.5) * box[3] / side])


def same_place(boxes, flips, i, j, threshold=0.7, side=3):
    """Whether cell i of the first view and cell j of the second lie near each other in the video."""
    bins = [np.hypot(box[2] / side, box[3] / side) for box in boxes]
    places = [centre(box, flip, cell, side) for box, flip, cell in zip(boxes, flips, (i, j), strict=True)]
    return np.linalg.norm(places[0] - places[1]) < threshold * max(bins)


class Encodings:
    """What a method's network makes, with one clip a group, of a batch that is not augmented."""

    def __init__(self, method, variables, batch, mode):
        self.method, self.variables, self.mode = method, variables, mode
        self.clips = batch.clip.astype(np.float32) / 255
        self.rgb, self.difference, self.parts = ([of(view) for view in (0, 1)] for of in (self._rgb, self._d, self._l))

    def apply(self, name, *inputs):
        given = {name: self.variables[name] for name in ("params", "batch_stats")}
        return self.method.network.apply(given, *inputs, method=name, mutable=["batch_stats"])[0]

    def _encode(self, clip):
        return self.apply("encode", augment.normalise(clip, *self.method.normalisation), self.mode)

    def _rgb(self, view):
        return self._encode(self.clips[:, view, ::2])

    def _d(self, view):
        first = self.method.config.first_difference
        return self._encode(frame_difference(self.clips[:, view, ::2], first=first))

    def _l(self, view):
        halves = self.clips[:, view, :4], self.clips[:, view, 4:]
        return np.stack([pooled(self._encode(frame_difference(half))) for half in halves], axis=1)

    def decode(self, one, other, name="pixel"):
        return self.apply("decode", self.rgb[one], self.rgb[other], name, self.mode)

    def project(self, x, name="pixel"):
        return np.asarray(self.apply("project", jnp.asarray(x), name))

    def pixels(self, x):
        """`[B, T, 9, D]`."""
        return self.project(x).reshape(CLIPS, TIMES, CELLS, -1)

    def foreground(self, view):
        """Cells above the quantile of the summed activation, for each clip."""
        config, maps = self.method.config, {"rgb": self.rgb[view], "difference": self.difference[view]}
        maps = [np.asarray(maps[name], np.float64) for name in config.foreground_of]
        strength = sum(x.mean((1, 4)).reshape(CLIPS, CELLS) for x in maps)
        least = {0.5: 5, 0.7: 6}[config.background]  # of 9 places
        return [set(np.argsort(row)[least:]) for row in strength]


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


def test_two_views_with_boxes_are_needed(method, variables, batch):
    loss = functools.partial(method.loss, stage=method.stages[0], train=True)
    for wrong in (batch._replace(box=None), batch._replace(clip=batch.clip[:, :1])):
        with pytest.raises(ValueError, match="two clips of each video are compared, and where they lie in it"):
            jax.eval_shape(loss, variables, wrong, jax.random.key(0))


def test_a_backbone_without_statistics_is_refused():
    one = built(backbone={"name": "c3d"}, **ALONE | {"instance_weight": 1.0})
    with pytest.raises(ValueError, match="backbone: 'c3d' has no batch normalisation"):
        jax.eval_shape(one.init, jax.random.key(0), a_batch(one, clip_shape=(32, 112, 112, 3)))


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


def test_views_keep_their_flip_and_differences_are_of_what_is_shown(method, batch):
    view = jax.jit(lambda batch: method._view(batch, 1, jax.random.key(3), True))(batch)
    assert 0 < view.flip.sum() < CLIPS
    plain = built(photometric=STILL["photometric"])
    view = jax.jit(lambda batch: plain._view(batch, 1, jax.random.key(3), True))(batch)
    shown = np.where(view.flip[:, None, None, None, None], batch.clip[:, 1, :, :, ::-1], batch.clip[:, 1]) / np.float32(
        255
    )

    def normalised(clip):
        return augment.normalise(clip, *plain.normalisation)

    np.testing.assert_allclose(view.clip, normalised(shown[:, ::2]), atol=1e-5)
    np.testing.assert_allclose(view.difference, normalised(frame_difference(shown[:, ::2])), atol=1e-5)
    for part, own in enumerate((shown[:, :4], shown[:, 4:])):
        np.testing.assert_allclose(view.parts[part], normalised(frame_difference(own)), atol=1e-5)
    np.testing.assert_array_equal(view.box, batch.box[:, 1])


def test_each_part_may_show_a_part_of_its_own_of_the_picture(batch):
    plain, apart = (built(**STILL, part_area=area) for area in (None, (0.3, 0.6)))
    key, drawn = jax.random.key(3), []
    whole, view = (jax.jit(lambda batch, one=one: one._view(batch, 0, key, True))(batch) for one in (plain, apart))
    for part, own in enumerate((batch.clip[:, 0, :4], batch.clip[:, 0, 4:])):
        drawn.append(augment.draw_crop(stream(key, f"crop{part}"), CLIPS, (0.3, 0.6)))
        shown = augment.crop(augment.to_float(jnp.asarray(own)), drawn[part])
        expected = augment.normalise(frame_difference(shown), *apart.normalisation)
        np.testing.assert_allclose(view.parts[part], expected, atol=1e-4)
    assert np.all(drawn[0] != drawn[1])
    np.testing.assert_array_equal(view.clip, whole.clip)
    for one, other in zip(apart._view(batch, 0, key, False).parts, whole.parts, strict=True):  # not in validation
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_frames_and_differences_are_coloured_apart(method, batch):
    strong = built(flip=False, photometric={"jitter": 1.0, "grayscale": 0.0, "blur": 0.0})
    key = jax.random.key(3)
    view = strong._view(batch, 0, key, True)
    config, clip = strong.config.photometric, batch.clip[:, 0, ::2] / np.float32(255)
    for name, image in (("rgb", clip), ("difference", frame_difference(clip))):
        drawn = augment.draw_photometric(stream(key, name), CLIPS, config)
        expected = augment.normalise(
            augment.change_photometry(jnp.asarray(image), drawn, config), *strong.normalisation
        )
        np.testing.assert_allclose(getattr(view, "clip" if name == "rgb" else name), expected, atol=1e-4)
    drawn = [augment.draw_photometric(stream(key, name), CLIPS, config).hue for name in ("rgb", "difference", "part0")]
    assert all(np.any(one != other) for one, other in itertools.combinations(drawn, 2))


def test_where_a_video_begins_again_nothing_has_moved(batch):
    plain, broken = built(**STILL), batch._replace(consecutive=batch.consecutive.copy())
    broken.consecutive[1, 0, 5] = False  # from frame 5 to 6: inside the step from frame 4 to 6 of the clip
    still = np.float32((0.5 - 0.45) / 0.225)
    view, whole = (plain._view(b, 0, jax.random.key(0), False) for b in (broken, batch))
    np.testing.assert_allclose(view.difference[1, 3], still, atol=1e-5)
    np.testing.assert_array_equal(np.delete(view.difference[1], 3, 0), np.delete(whole.difference[1], 3, 0))
    np.testing.assert_allclose(view.parts[1][1, 2], still, atol=1e-5)
    np.testing.assert_array_equal(np.delete(view.parts[1][1], 2, 0), np.delete(whole.parts[1][1], 2, 0))
    np.testing.assert_array_equal(view.parts[0], whole.parts[0])


def test_a_step_moves_averages_statistics_and_queues(method, variables, batch):
    ahead = {**variables, "params": jax.tree.map(lambda p: p + 1, variables["params"])}
    moved = loss_of(method, train=True)(ahead, batch, jax.random.key(0))[1].collections
    assert set(moved) == {"batch_stats", "key_encoder", "queue"}
    before, after = (leaves(v["key_encoder"]["params"]) for v in (variables, moved))
    assert before.keys() == after.keys() and not any("decoder" in name for name in before)
    for name, old in before.items():
        np.testing.assert_allclose(after[name], old + 0.5, atol=1e-6)
    for of in (lambda given: given["batch_stats"], lambda given: given["key_encoder"]["batch_stats"]):
        old, new = leaves(of(variables)), leaves(of(moved))
        assert old.keys() == new.keys() and all(np.any(old[name] != new[name]) for name in old)
    assert moved["queue"]["instance"]["next"] == 8 and moved["queue"]["frame"]["next"] == 16


def test_queues_hold_what_a_plain_simulation_holds(batch):
    """The keys of both views, in the order of the batch, after they have been compared; round the end, too."""
    still = built(**STILL, pixel_queue=150)
    variables, step = begin(still, a_batch(still)), loss_of(still, train=True)
    expected = {name: list(np.asarray(held["keys"])) for name, held in variables["queue"].items()}
    for number in range(3):
        given = a_batch(still, seed=number)
        moved = step(variables, given, jax.random.key(number))[1].collections
        seen = Encodings(still, {**variables, **moved["key_encoder"]}, given, TrainMode(batch_norm_group=1))
        for view in (1, 0):  # the first direction compares with the second view
            keys = {
                "instance": seen.project(pooled(seen.rgb[view])),
                "frame": seen.project(seen.parts[view]).reshape(-1, 6),
                "pixel": seen.project(seen.difference[view]).reshape(-1, 6),
            }
            expected = {name: [*rows[len(keys[name]) :], *keys[name]] for name, rows in expected.items()}
        variables = {**variables, **moved}
    for name, rows in expected.items():
        held = variables["queue"][name]
        np.testing.assert_allclose(np.roll(held["keys"], -int(held["next"]), axis=0), rows, rtol=1e-3, atol=1e-4)


def test_keys_come_back_in_the_order_of_the_batch(variables, batch):
    """Clips in another order, whose keys are encoded in another order than their queries, are enqueued in theirs."""
    step, order = loss_of(built(**STILL), train=True), np.array([2, 0, 3, 1])
    one, two = (
        step(variables, given, jax.random.key(0))[1].collections["queue"]["instance"]["keys"]
        for given in (batch, jax.tree.map(lambda x: x[order], batch))
    )
    np.testing.assert_allclose(two[:4], one[:4][order], rtol=1e-3, atol=1e-4)


def test_gradients_reach_everything_but_the_keys(method, variables, batch):
    def loss(params, encoder):
        given = {**variables, "params": params, "key_encoder": {**variables["key_encoder"], "params": encoder}}
        return method.loss(given, batch, jax.random.key(0), method.stages[0], train=True)[0]

    of_params, of_keys = jax.jit(jax.grad(loss, argnums=(0, 1)))(
        variables["params"], variables["key_encoder"]["params"]
    )
    assert all(np.all(g == 0) for g in leaves(of_keys).values())
    # A softmax does not change when all its scores do.
    still = [name for name, g in leaves(of_params).items() if np.abs(g).max() < 1e-7 and "key/bias" not in name]
    assert not still


def test_the_frames_of_the_target_learn_from_what_is_decoded_of_them(batch):
    """L_Fra has no query but the token: all that the backbone learns, it learns as memory."""
    only = built(**ALONE | {"frame_weight": 1.0})
    variables = begin(only, a_batch(only))

    def loss(params):
        return only.loss({**variables, "params": params}, batch, jax.random.key(0), only.stages[0], train=True)[0]

    gradient = jax.jit(jax.grad(loss))(variables["params"])
    assert all(np.any(g) for g in leaves(gradient["backbone"]).values())


@pytest.mark.parametrize(
    ("weights", "modules", "queues"),
    [
        ({"instance_weight": 1.0}, set(), {"instance"}),
        ({"instance_weight": 1.0, "difference_weight": 1.0}, set(), {"instance", "difference"}),
        ({"pixel_weight": 1.0}, {"motion_decoder_shared"}, set()),
        ({"frame_weight": 1.0}, {"motion_decoder_shared"}, {"frame"}),
        ({"frame_weight": 1.0, "frame_loss": "mse"}, {"motion_decoder_shared"}, set()),
        ({"pixel_weight": 1.0, "decoder": {"layers": 0}}, set(), set()),
    ],
)
def test_what_no_term_needs_is_not_there(weights, modules, queues):
    one = built(**ALONE | weights)
    shapes = jax.eval_shape(one.init, jax.random.key(0), a_batch(one))
    assert set(shapes["params"]) == {"backbone", "projection_shared"} | modules
    assert set(shapes.get("queue", {})) == queues
    derived = jax.eval_shape(one.derive, shapes)
    assert set(derived["key_encoder"]["params"]) == {"backbone", "projection_shared"}
    jax.eval_shape(loss_of(one, train=True), derived, a_batch(one), jax.random.key(0))
    assert [*one.stages[0].terms] == [name.removesuffix("_weight") for name in weights if name.endswith("_weight")]


def test_projections_and_decoders_may_be_apart(batch):
    one = built(shared_projection=False, shared_decoder=False, difference_weight=1.0)
    variables = begin(one, a_batch(one))
    names = {"instance", "difference", "pixel", "frame"}
    expected = {"backbone", *(f"projection_{name}" for name in names), "motion_decoder_pixel", "motion_decoder_frame"}
    assert set(variables["params"]) == expected
    metrics = loss_of(one, train=True)(variables, batch, jax.random.key(0))[1].metrics
    assert names < set(metrics)


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


def test_half_precision_gives_about_the_same_loss(variables, batch):
    whole, half = (
        loss_of(built(**STILL, dtype=dtype), train=True)(variables, batch, jax.random.key(0))[1].metrics
        for dtype in ("float32", "bfloat16")
    )
    for name in ("instance", "pixel", "frame"):
        assert half[name].dtype == jnp.float32
        np.testing.assert_allclose(half[name], whole[name], rtol=0.05)


def test_a_run_that_was_interrupted_goes_on_to_the_same_bits(tmp_path):
    one = built(**ALONE | {"instance_weight": 1.0, "frame_weight": 1.0})
    memory.run(tmp_path / "whole", one)
    with pytest.raises(KeyboardInterrupt):
        memory.run(tmp_path / "cut", one, memory.Memory(stop_after=3))
    memory.run(tmp_path / "cut", one)
    found, expected = (final_variables(tmp_path / name, one) for name in ("cut", "whole"))
    assert set(found) == {"params", "batch_stats", "key_encoder", "queue"}
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_features_are_those_of_every_second_frame(method, variables, batch):
    clips = batch.clip[:, 0]
    found = jax.jit(method.encode)(variables, clips)
    given = {name: variables[name] for name in ("params", "batch_stats")}
    clip = augment.normalise(clips[:, ::2] / np.float32(255), *method.normalisation)
    maps = method.network.apply(given, clip, False, method="encode")
    np.testing.assert_allclose(found.features["backbone"], pooled(maps), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.last, maps, rtol=1e-4, atol=1e-5)


def test_the_report_is_given_what_the_pictures_of_the_paper_show(method, variables, batch):
    similar = np.asarray(jax.jit(method.similarities)(variables, batch)["frames x differences"])
    seen = Encodings(method, variables, batch, False)
    maps = (np.asarray(x).mean(1) for x in (seen.rgb[0], seen.difference[0]))
    rows, columns = (unit(x.reshape(CLIPS, CELLS, -1)) for x in maps)
    np.testing.assert_allclose(similar, np.einsum("bic,bjc->bij", rows, columns), atol=1e-3)

    found = jax.jit(method.highlights)(variables, batch)
    names = ["activation, difference", "activation, rgb", "foreground", "place", "place, decoded of"]
    assert [*found] == names and [found[name].clip for name in names] == [0, 0, 0, 0, 1]
    for name, source in (("rgb", seen.rgb), ("difference", seen.difference)):
        expected = np.asarray(source[0]).mean((1, 4))[:, None]
        np.testing.assert_allclose(found[f"activation, {name}"].strength, expected, rtol=1e-3)
    shown = np.asarray(found["foreground"].strength).reshape(CLIPS, CELLS)
    assert [set(np.flatnonzero(row)) for row in shown] == seen.foreground(0)
    place = np.asarray(found["place"].strength).reshape(CLIPS, CELLS)
    assert np.all(place.sum(1) == 1) and np.all(shown[place > 0] == 1)
    looks = np.asarray(found["place, decoded of"].strength)
    assert looks.shape == (CLIPS, TIMES, 3, 3)
    np.testing.assert_allclose(looks.sum((2, 3)), 1, rtol=1e-5)
    exported = {name: {"backbone": variables[name]["backbone"]} for name in ("params", "batch_stats")}
    assert [*jax.eval_shape(method.highlights, exported, batch)] == names[:3]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (ALONE, "must be 0 or more, one of them above 0"),
        ({"frame_loss": "infonce"}, "frame_loss: there is no 'infonce'. Did you mean 'info_nce'"),
        ({"first_difference": "warp"}, "first_difference: there is no 'warp'. Did you mean 'wrap'"),
        ({"foreground_of": ("rbg",)}, "foreground_of: there is no 'rbg'. Did you mean 'rgb'"),
        ({"foreground_on": ("targets",)}, "foreground_on: there is no 'targets'. Did you mean 'target'"),
        ({"foreground_of": ()}, "foreground_of must name"),
        ({"decoder": {"layers": 0}}, "frame_weight: L_Fra needs a motion decoder"),
        ({"decoder": {"width": 9, "heads": 2}}, "width and heads must be"),
        ({"temperature": 0.0}, "temperature must be above 0"),
        ({"threshold": -1.0}, "threshold must be above 0"),
        ({"background": 1.0}, "background must be from 0 up and below 1"),
        ({"momentum": 1.5}, "momentum must be above 0"),
        ({"stride": 0}, "stride must be 1 or more"),
        ({"min_offset": 9, "max_offset": 3}, "area, min_offset, max_offset: min_offset must be 0 or more"),
        ({"part_area": (0.5, 0.2)}, "part_area: area and aspect must be"),
        ({"motion_blocks": ("res9",)}, "motion_blocks: no stage is called 'res9'"),
        ({"stages": {}}, "stages must be exactly 'contrast'"),
    ],
)
def test_wrong_fields_are_named(fields, message):
    with pytest.raises(ConfigError, match=message):
        built(**fields)


@pytest.mark.parametrize(
    ("fields", "clip_shape", "message"),
    [
        ({"queue": 15}, CLIP_SHAPE, "queue: 15 keys are fewer than the 16 of a batch"),
        ({"pixel_queue": 60}, CLIP_SHAPE, "pixel_queue: 60 keys are fewer than the 144 of a batch"),
        ({"pixel_group": 3}, CLIP_SHAPE, "pixel_group: 4 clips do not divide into groups of 3"),
        ({"batch_norm_group": 4}, CLIP_SHAPE, "batch_norm_group: 4 clips are the whole batch of 4"),
        ({}, (7, 48, 48, 3), "stride: 7 frames that are read do not divide by 2"),
        ({"frame_loss": "triplet"}, (4, 48, 48, 3), "frame_loss: 'triplet' compares parts of a clip"),
        ({}, (10, 48, 48, 3), "clips of 5 x 48 x 48 that are shown do not divide by .*, 2 x 16 x 16"),
        ({}, (8, 48, 56, 3), "clips of 4 x 48 x 56 that are shown do not divide by .*, 2 x 16 x 16"),
    ],
)
def test_what_does_not_fit_is_named(fields, clip_shape, message):
    one = built(**fields)
    given = a_batch(one, clip_shape=clip_shape)
    variables = jax.eval_shape(lambda key: one.derive(one.init(key, given)), jax.random.key(0))
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(
            functools.partial(one.loss, stage=one.stages[0], train=True), variables, given, jax.random.key(0)
        )
