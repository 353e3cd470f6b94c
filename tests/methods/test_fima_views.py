"""What FIMA's networks see: flips, colours, frame differences, and the parts of a clip."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hcml_jax import augment
from hcml_jax.methods.fima_views import view_of
from hcml_jax.ops import frame_difference
from hcml_jax.rng import stream
from tests.methods.fima import CLIPS, STILL, a_batch, built


@pytest.fixture(scope="module")
def method():
    return built()


@pytest.fixture(scope="module")
def batch(method):
    return a_batch(method)


def test_views_keep_their_flip_and_differences_are_of_what_is_shown(method, batch):
    view = jax.jit(lambda batch: view_of(method.config, batch, 1, jax.random.key(3), True))(batch)
    assert 0 < view.flip.sum() < CLIPS
    plain = built(photometric=STILL["photometric"])
    view = jax.jit(lambda batch: view_of(plain.config, batch, 1, jax.random.key(3), True))(batch)
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
    whole, view = (view_of(one.config, batch, 0, key, True) for one in (plain, apart))
    for part, own in enumerate((batch.clip[:, 0, :4], batch.clip[:, 0, 4:])):
        drawn.append(augment.draw_crop(stream(key, f"crop{part}"), CLIPS, (0.3, 0.6)))
        shown = augment.crop(augment.to_float(jnp.asarray(own)), drawn[part])
        expected = augment.normalise(frame_difference(shown), *apart.normalisation)
        np.testing.assert_allclose(view.parts[part], expected, atol=1e-4)
    assert np.all(drawn[0] != drawn[1])
    np.testing.assert_array_equal(view.clip, whole.clip)
    validated = view_of(apart.config, batch, 0, key, False)
    for one, other in zip(validated.parts, whole.parts, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_frames_and_differences_are_coloured_apart(method, batch):
    strong = built(flip=False, photometric={"jitter": 1.0, "grayscale": 0.0, "blur": 0.0})
    key = jax.random.key(3)
    view = view_of(strong.config, batch, 0, key, True)
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
    view, whole = (view_of(plain.config, b, 0, jax.random.key(0), False) for b in (broken, batch))
    np.testing.assert_allclose(view.difference[1, 3], still, atol=1e-5)
    np.testing.assert_array_equal(np.delete(view.difference[1], 3, 0), np.delete(whole.difference[1], 3, 0))
    np.testing.assert_allclose(view.parts[1][1, 2], still, atol=1e-5)
    np.testing.assert_array_equal(np.delete(view.parts[1][1], 2, 0), np.delete(whole.parts[1][1], 2, 0))
    np.testing.assert_array_equal(view.parts[0], whole.parts[0])
