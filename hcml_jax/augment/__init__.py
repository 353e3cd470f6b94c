"""Clip augmentation on the device: pure functions of (key, clip); one draw a clip, shared by its frames."""

from hcml_jax.augment.clips import augment, normalise, random_colour, random_flip, to_float

__all__ = ["augment", "normalise", "random_colour", "random_flip", "to_float"]
