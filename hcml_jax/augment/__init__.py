"""Clip augmentation on the device: pure functions of clips and of what was drawn, once for all frames of a clip."""

from hcml_jax.augment.clips import normalise, to_float
from hcml_jax.augment.crop import crop, draw_crop
from hcml_jax.augment.flip import draw_flip, flip, flip_flow
from hcml_jax.augment.photometric import (
    Photometric,
    PhotometricConfig,
    change_photometry,
    draw_photometric,
    gaussian_blur,
    grayscale,
    jitter_colours,
    turn_hue,
)
