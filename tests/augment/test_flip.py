"""Flips of clips and of flow."""

import jax
import jax.numpy as jnp
import numpy as np

from hcml_jax.augment import draw_flip, flip, flip_flow
from hcml_jax.ops import backward_warp


def test_half_of_the_clips_are_mirrored_all_frames_alike(key):
    flipped = draw_flip(key, 64)
    assert 16 < flipped.sum() < 48
    clip = jax.random.uniform(key, (64, 3, 2, 4, 3))
    for found, one, mirrored in zip(flip(clip, flipped), clip, flipped, strict=True):
        np.testing.assert_array_equal(found, one[:, :, ::-1] if mirrored else one)


def test_flow_of_a_mirrored_clip_explains_the_mirrored_frames(key):
    image = jax.random.uniform(key, (2, 1, 6, 8, 3))
    flow = jax.random.randint(key, (2, 1, 6, 8, 2), -2, 3).astype(jnp.float32)
    flipped = jnp.array([True, False])
    warped = backward_warp(image, flow)[0]
    again = backward_warp(flip(image, flipped), flip_flow(flow, flipped))[0]
    np.testing.assert_allclose(again, flip(warped, flipped), atol=1e-6)
    assert flip_flow(flow.astype(jnp.bfloat16), flipped).dtype == jnp.bfloat16
