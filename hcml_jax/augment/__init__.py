"""Clip augmentation on the device: pure functions of (key, clip); one draw a clip, shared by its frames."""

from hcml_jax.augment.clips import normalise, random_flip, to_float
