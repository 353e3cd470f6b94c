"""FIMA: what a step moves, where gradients go, what is encoded, and runs that are interrupted."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hcml_jax import augment
from hcml_jax.models import TrainMode
from tests.methods.fima import ALONE, CELLS, CLIPS, STILL, TIMES, Encodings, a_batch, built, loss_of, pooled
from tests.methods.stages import begin, leaves, unit
from tests.training import memory
from tests.training.test_loop import final_variables


@pytest.fixture(scope="module")
def method():
    return built()


@pytest.fixture(scope="module")
def batch(method):
    return a_batch(method)


@pytest.fixture(scope="module")
def variables(method):
    return begin(method, a_batch(method))


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


def test_projections_and_decoders_may_be_apart(batch):
    one = built(shared_projection=False, shared_decoder=False, difference_weight=1.0)
    variables = begin(one, a_batch(one))
    names = {"instance", "difference", "pixel", "frame"}
    expected = {"backbone", *(f"projection_{name}" for name in names), "motion_decoder_pixel", "motion_decoder_frame"}
    assert set(variables["params"]) == expected
    metrics = loss_of(one, train=True)(variables, batch, jax.random.key(0))[1].metrics
    assert names < set(metrics)


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
