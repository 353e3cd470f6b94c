"""Motion Sprites: textured shapes over a textured, slowly moving background, rendered in JAX.

A class is only a motion (`data_pipelines.motions`): textures, colours, outlines, sizes and the background with its
velocity are drawn from separate keys, in the same way for every class. (`appearance_cue` makes colours depend on the
class in training, to see which networks are misled.) The families "elementary" and
"composed" show one sprite, "relational" shows two, so one frame may reveal the family.

Textures are sums of plane waves evaluated at the exact place of every pixel: they move by fractions of a pixel without
interpolation, and the flow is known in closed form.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from data_pipelines.config import FAMILIES, LARGEST_BULGE, SpritesConfig
from data_pipelines.motions import MOTIONS, Path, draw_motion, frame_times

_TINT = 0.15  # waves are mostly light and dark: video files keep colour at half resolution
_SPREAD, _CUE_SPREAD = 0.08, 0.02  # of a hue, in turns of the colour circle
_LOBES = (0.0, 4.0, 5.0)  # disc, rounded square, star: outline = radius (1 + bulge cos(lobes angle))
_BULGES = (0.0, 0.12, LARGEST_BULGE - 1.0)


class SpriteClip(NamedTuple):
    """One clip of a set: its number in the whole set, the index of its class, its split and name."""

    number: int
    label: int
    split: str
    name: str


def plan(config: SpritesConfig) -> list[SpriteClip]:
    """The clips of a set, in order."""
    clips = []
    # A clip's number is its key: "val" comes last, so that its size changes no other clip.
    for split in ("train", "test", "val"):
        for label, class_name in enumerate(config.classes):
            for i in range(getattr(config, f"{split}_per_class")):
                clips.append(SpriteClip(len(clips), label, split, f"{split}/{class_name}_{i:04d}"))
    return clips


def cue_of(config: SpritesConfig, split: str) -> float:
    """The chance of a clip of this split to have its class's colours."""
    return config.appearance_cue if split == "train" else 0.0


class Camera(NamedTuple):
    """How the background moves: a frame's shift `[2]` (x, y) in pixels, turn in radians and growth (logarithm)."""

    velocity: jax.Array
    turn: jax.Array
    growth: jax.Array


class Look(NamedTuple):
    """Appearance of N layers (background, sprite 1, sprite 2).

    Attributes:
      wave: `[N, K, 2]` (x, y), radians per pixel.
      phase: `[N, K]`, radians.
      mixing: `[N, K, 3]`, from waves to red, green, blue.
      colour: `[N, 3]` in [0, 1].
      shape: `[N]`, index of an outline.
    """

    wave: jax.Array
    phase: jax.Array
    mixing: jax.Array
    colour: jax.Array
    shape: jax.Array


def render(
    key: jax.Array, class_index: jax.Array, config: SpritesConfig, cue: jax.Array | float = 0.0
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Renders one clip; usable under `jit` (`config` static) and `vmap` (over keys and classes).

    Within a family, a single frame at a random time is independent of the class; among classes that change neither size
    nor distance (translations, rotations, all of "composed"), so is a frame at any given time.

    Args:
      key: a random key; with the class and `config` it fixes the clip.
      class_index: int scalar, index into `config.classes`.
      config: sizes, speeds and textures.
      cue: the chance that the clip has its class's colours.

    Returns:
      clip: uint8 `[T, H, W, 3]`, RGB.
      flow: float32 `[T-1, H, W, 2]`, (u right, v down) in pixels: displacement to frame t+1 of the point seen at a
        pixel of frame t, even if it leaves the frame or is occluded.
      mask: uint8 `[T, H, W]`, 0 background, 1 and 2 the sprites (2 in front of 1).
    """
    motion_key, look_key, radius_key, velocity_key = jax.random.split(key, 4)
    two = jnp.array([FAMILIES[name] == "relational" for name in config.classes])[class_index]
    radius, pair_radius = _draw_radii(radius_key, config)
    draw = draw_motion(motion_key, pair_radius.sum(), config)
    motions = [MOTIONS[name] for name in config.classes]
    path = jax.lax.switch(class_index, motions, draw, frame_times(config.frames))
    camera = _draw_camera(velocity_key, config)
    look = _draw_look(look_key, config, class_index, cue)
    offset = _offsets(path.centre, config.size, wrap=~two)
    local = _to_sprite(offset, path)
    coverage = _coverage(local, path.scale, jnp.where(two, pair_radius, radius), look.shape[1:])
    coverage = jnp.where(jnp.stack([jnp.array(True), two])[:, None, None], coverage, 0.0)
    times = frame_times(config.frames)
    ground = jax.vmap(_on_ground, (None, 0, None))(camera, times, _pixel_centres(config.size))
    places = jnp.concatenate([ground[:, None], local], axis=1)
    colours = jax.vmap(functools.partial(_texture, sharpness=config.sharpness), (1, 0), 1)(places, look)
    mask = _front(coverage)
    ground_flow = jax.vmap(_in_frame, (None, 0, 0))(camera, times[1:], ground[:-1]) - _pixel_centres(config.size)
    return jnp.round(255 * _over(colours, coverage)).astype(jnp.uint8), _flow(offset, path, ground_flow, mask), mask


def _draw_radii(key: jax.Array, config: SpritesConfig) -> tuple[jax.Array, jax.Array]:
    """Radii of a sprite alone and of two sprites, `[2]` each, in pixels."""
    unit = jax.random.uniform(key, (2,))
    return tuple(low + (high - low) * unit for low, high in (config.radius, config.pair_radius))


def _draw_camera(key: jax.Array, config: SpritesConfig) -> Camera:
    limit = config.background_speed
    velocity = jax.random.uniform(key, (2,), minval=-limit, maxval=limit)
    limits = jnp.array([config.background_turn, config.background_growth])
    turn, growth = jax.random.uniform(jax.random.fold_in(key, 0), (2,), minval=-limits, maxval=limits)
    return Camera(velocity, turn, growth)


def _draw_look(key: jax.Array, config: SpritesConfig, class_index: jax.Array, cue: jax.Array | float) -> Look:
    length_key, angle_key, phase_key, light_key, tint_key, hue_key, shape_key = jax.random.split(key, 7)
    first_key, jitter_key, cue_key = *jax.random.split(hue_key), jax.random.fold_in(hue_key, 2)
    short, long = config.wavelength
    length = jax.random.uniform(length_key, (3, config.waves), minval=short, maxval=long)
    # Waves point all round, so that motion shows in every direction (no aperture problem).
    spread = jax.random.uniform(angle_key, (3, config.waves)) + jnp.arange(config.waves, dtype=jnp.float32)
    angle = spread * jnp.pi / config.waves
    direction = jnp.stack([jnp.cos(angle), jnp.sin(angle)], axis=-1)
    mixing = jax.random.normal(light_key, (3, config.waves, 1))
    mixing += _TINT * jax.random.normal(tint_key, (3, config.waves, 3))
    # A wave has variance 1/2; each channel is brought to variance contrast^2.
    mixing *= config.contrast * jnp.sqrt(2.0) / jnp.linalg.norm(mixing, axis=1, keepdims=True)
    return Look(
        wave=2 * jnp.pi / length[..., None] * direction,
        phase=jax.random.uniform(phase_key, (3, config.waves), maxval=2 * jnp.pi),
        mixing=mixing,
        colour=jnp.where(
            jax.random.bernoulli(cue_key, cue),
            _draw_colours(jitter_key, class_index / len(config.classes), _CUE_SPREAD),
            _draw_colours(jitter_key, jax.random.uniform(first_key), _SPREAD),
        ),
        shape=jax.random.randint(shape_key, (3,), 0, len(_LOBES)),
    )


def _draw_colours(key: jax.Array, first: jax.Array, spread: float) -> jax.Array:
    """Three colours `[3, 3]` a third of the colour circle apart, from hue `first` in [0, 1]: layers stand out."""
    hue = first + jnp.arange(3.0) / 3
    hue += jax.random.uniform(key, (3,), minval=-spread, maxval=spread)
    return 0.5 + 0.25 * jnp.cos(2 * jnp.pi * (hue[:, None] + jnp.arange(3.0) / 3))


def _pixel_centres(size: int) -> jax.Array:
    """Places (x, y) of all pixels, `[H, W, 2]`."""
    line = jnp.arange(size, dtype=jnp.float32)
    return jnp.stack(jnp.meshgrid(line, line), axis=-1)


def _offsets(centre: jax.Array, size: int, wrap: jax.Array) -> jax.Array:
    """From each sprite's centre to each pixel, `[T, 2, H, W, 2]`; `wrap`: the short way."""
    offset = _pixel_centres(size) - centre[:, :, None, None]
    return jnp.where(wrap, (offset + size / 2) % size - size / 2, offset)


def _turn(vector: jax.Array, angle: jax.Array) -> jax.Array:
    """Vectors `[..., 2]` turned by `angle` `[...]`, clockwise on a screen whose y points down."""
    x, y = vector[..., 0], vector[..., 1]
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    return jnp.stack([cos * x - sin * y, sin * x + cos * y], axis=-1)


def _to_sprite(offset: jax.Array, path: Path) -> jax.Array:
    """Offsets in each sprite's own frame of reference: turned back and scaled back."""
    angle, scale = path.angle[..., None, None], path.scale[..., None, None, None]
    return _turn(offset, -angle) / scale


def _coverage(local: jax.Array, scale: jax.Array, radius: jax.Array, shape: jax.Array) -> jax.Array:
    """Share of each pixel that each sprite covers, `[T, 2, H, W]`; its edge is one pixel wide."""
    distance = jnp.linalg.norm(local, axis=-1)
    angle = jnp.arctan2(local[..., 1], local[..., 0])
    lobes, bulge = (jnp.array(of)[shape][:, None, None] for of in (_LOBES, _BULGES))
    outline = radius[:, None, None] * (1 + bulge * jnp.cos(lobes * angle))
    return jnp.clip((outline - distance) * scale[..., None, None] + 0.5, 0.0, 1.0)


def _on_ground(camera: Camera, time: jax.Array, pixels: jax.Array) -> jax.Array:
    """Where on the background pixels `[H, W, 2]` lie at a time."""
    middle = (pixels.shape[0] - 1) / 2
    turned = _turn(pixels - middle, -camera.turn * time)
    return turned * jnp.exp(-camera.growth * time) + middle - camera.velocity * time


def _in_frame(camera: Camera, time: jax.Array, places: jax.Array) -> jax.Array:
    """At which pixels places `[H, W, 2]` of the background are seen at a time: the inverse of `_on_ground`."""
    middle = (places.shape[0] - 1) / 2
    offset = (places + camera.velocity * time - middle) * jnp.exp(camera.growth * time)
    return _turn(offset, camera.turn * time) + middle


def _texture(places: jax.Array, look: Look, sharpness: float) -> jax.Array:
    """Colour `[..., 3]` of one layer at `places` `[..., 2]`."""
    waves = jnp.cos(places @ look.wave.T + look.phase) @ look.mixing
    if sharpness:
        waves = jnp.tanh(sharpness * waves) / sharpness
    return jnp.clip(look.colour + waves, 0.0, 1.0)


def _over(colours: jax.Array, coverage: jax.Array) -> jax.Array:
    """Layers `[T, 3, H, W, 3]` laid over each other, `[T, H, W, 3]`."""
    image = colours[:, 0]
    for sprite in range(2):
        share = coverage[:, sprite, ..., None]
        image = share * colours[:, sprite + 1] + (1 - share) * image
    return image


def _front(coverage: jax.Array) -> jax.Array:
    """Index of the front-most layer of each pixel, uint8 `[T, H, W]`."""
    first, second = (coverage[:, sprite] > 0.5 for sprite in range(2))
    return jnp.where(second, jnp.uint8(2), first.astype(jnp.uint8))


def _flow(offset: jax.Array, path: Path, ground: jax.Array, mask: jax.Array) -> jax.Array:
    """Displacement `[T-1, H, W, 2]` of the front-most layer from each frame to the next; `ground`: the background's."""
    step = path.centre[1:] - path.centre[:-1]
    angle = path.angle[1:] - path.angle[:-1]
    scale = path.scale[1:] / path.scale[:-1]
    here = offset[:-1]
    there = scale[..., None, None, None] * _turn(here, angle[..., None, None])
    sprites = step[:, :, None, None] + there - here
    front = mask[:-1, ..., None]
    return jnp.where(front == 0, ground, jnp.where(front == 1, sprites[:, 0], sprites[:, 1]))
