"""How the sprites of each Motion Sprites class move: a path of centres, angles and sizes.

All motions share one `Draw`, so only the shape of the path depends on the class. Three constructions keep single frames
from revealing it:

* **Place.** A single sprite moves on a torus (it leaves on one side and re-enters on the other) and starts anywhere: at
  every frame its centre is uniform, whatever the motion. So is its angle.
* **Size.** A zoom takes T sizes, evenly spaced on a log scale, one after the other, upwards or downwards. All other
  motions keep one of these T sizes, drawn at random.
* **Distance.** Likewise two sprites have T evenly spaced distances. `approach` takes them downwards, `separate`
  upwards, `collide_and_bounce` every second one downwards and the others upwards; `follow` keeps one of them. Only
  `follow` moves the middle of the pair; the others keep one of the T places of that movement.

Place and angle therefore have the same distribution for all classes of a family at every frame; size and distance have
it for a frame at a random time (at a known time they cannot: a growing sprite is small at first).
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from data_pipelines.config import SpritesConfig

_SPEED_CHANGE = 0.75  # speed_up runs from (1 - this) to (1 + this) times its mean speed
_PAIR_ROOM = 0.15  # the middle of a pair lies at most this times half the frame off the frame's


class Draw(NamedTuple):
    """The random variables of a motion: scalars, in pixels, radians and frames, unless noted.

    Attributes:
      start: `[2]` (x, y), uniform over the frame.
      heading: `[2]`, unit vector, uniform: direction of motions that change speed, or from sprite 1 to sprite 2.
      angles: `[2]`, uniform over the circle.
      speed: mean speed.
      rotation: angle turned per frame.
      growth: logarithm of the factor of growth per frame.
      closing: change of the distance per frame.
      contact: distance at which the two sprites touch.
      middle: `[2]` (x, y), middle of a pair.
      moments: `[2]`, random times of the clip, counted from its middle.
    """

    start: jax.Array
    heading: jax.Array
    angles: jax.Array
    speed: jax.Array
    rotation: jax.Array
    growth: jax.Array
    closing: jax.Array
    contact: jax.Array
    middle: jax.Array
    moments: jax.Array


class Path(NamedTuple):
    """Where two sprites are.

    Attributes:
      centre: `[T, 2, 2]` (time, sprite, xy), pixels.
      angle: `[T, 2]`, radians, clockwise.
      scale: `[T, 2]`, times the sprite's own size.
    """

    centre: jax.Array
    angle: jax.Array
    scale: jax.Array


Motion = Callable[[Draw, jax.Array], Path]


def frame_times(frames: int) -> jax.Array:
    """Times of the frames, `[T]`, counted from the middle of the clip."""
    return jnp.arange(frames, dtype=jnp.float32) - (frames - 1) / 2


def draw_motion(key: jax.Array, contact: jax.Array, config: SpritesConfig) -> Draw:
    """Draws all that is random about a motion; sprites touch at distance `contact`."""
    keys = iter(jax.random.split(key, 9))

    def between(low, high, shape=()):
        return jax.random.uniform(next(keys), shape, minval=low, maxval=high)

    heading = between(0.0, 2 * jnp.pi)
    log_zoom = jnp.log(jnp.array(config.zoom))
    half = config.size / 2
    return Draw(
        start=between(0.0, config.size, (2,)),
        heading=jnp.stack([jnp.cos(heading), jnp.sin(heading)]),
        angles=between(0.0, 2 * jnp.pi, (2,)),
        speed=between(*config.speed),
        rotation=between(*config.rotation),
        growth=between(log_zoom[0], log_zoom[1]),
        closing=between(*config.closing_speed),
        contact=contact,
        middle=half + half * between(-_PAIR_ROOM, _PAIR_ROOM, (2,)),
        moments=jax.random.choice(next(keys), frame_times(config.frames), (2,)),
    )


def _alone(draw: Draw, time: jax.Array, offset=None, turn=None, steps=None) -> Path:
    """Path of one sprite, written twice: `offset` `[T, 2]`, `turn` and growth `steps` `[T]`."""
    offset = jnp.zeros((len(time), 2)) if offset is None else offset
    turn = jnp.zeros_like(time) if turn is None else turn
    steps = jnp.full_like(time, draw.moments[0]) if steps is None else steps
    path = Path(draw.start + offset, draw.angles[0] + turn, jnp.exp(draw.growth * steps))
    return Path(*(jnp.stack([part, part], axis=1) for part in path))


def _translate(x: float, y: float, draw: Draw, time: jax.Array) -> Path:
    return _alone(draw, time, offset=draw.speed * time[:, None] * jnp.array([x, y]))


def _rotate(sign: float, draw: Draw, time: jax.Array) -> Path:
    return _alone(draw, time, turn=sign * draw.rotation * time)


def _zoom(sign: float, draw: Draw, time: jax.Array) -> Path:
    return _alone(draw, time, steps=sign * time)


def _there_and_back(x: float, draw: Draw, time: jax.Array) -> Path:
    way = -draw.speed * jnp.abs(time)
    return _alone(draw, time, offset=way[:, None] * jnp.array([x, 0.0]))


def _change_speed(sign: float, draw: Draw, time: jax.Array) -> Path:
    """The speed rises (or falls) evenly about its mean; one is the other played backwards."""
    way = draw.speed * (time + sign * _SPEED_CHANGE * time**2 / (2 * time[-1]))
    return _alone(draw, time, offset=way[:, None] * draw.heading)


def _pair(draw: Draw, time: jax.Array, distance, place=None) -> Path:
    """Path of two sprites: `distance` and `place` of their middle `[T]`, in closing steps."""
    distance = draw.contact + draw.closing * distance
    place = draw.closing * (jnp.full_like(time, draw.moments[1]) if place is None else place)
    middle = draw.middle + place[:, None] * draw.heading
    half = distance[:, None] / 2 * draw.heading
    centre = jnp.stack([middle - half, middle + half], axis=1)
    angle = jnp.broadcast_to(draw.angles, (len(time), 2))
    return Path(centre, angle, jnp.ones_like(angle))


def _change_distance(sign: float, draw: Draw, time: jax.Array) -> Path:
    return _pair(draw, time, len(time) / 2 + sign * time)


def _follow(draw: Draw, time: jax.Array) -> Path:
    return _pair(draw, time, jnp.full_like(time, len(time) / 2) + draw.moments[0], place=time)


def _collide_and_bounce(draw: Draw, time: jax.Array) -> Path:
    # Turning a quarter of a frame after the middle, 2 |t| takes 0.5, 1.5, ... T - 0.5 once each.
    return _pair(draw, time, 2 * jnp.abs(time - 0.25))


MOTIONS: dict[str, Motion] = {
    "translate_left": partial(_translate, -1.0, 0.0),
    "translate_right": partial(_translate, 1.0, 0.0),
    "translate_up": partial(_translate, 0.0, -1.0),
    "translate_down": partial(_translate, 0.0, 1.0),
    "rotate_clockwise": partial(_rotate, 1.0),  # y points down: x turns towards y
    "rotate_counterclockwise": partial(_rotate, -1.0),
    "zoom_in": partial(_zoom, 1.0),
    "zoom_out": partial(_zoom, -1.0),
    "right_then_left": partial(_there_and_back, 1.0),
    "left_then_right": partial(_there_and_back, -1.0),
    "speed_up": partial(_change_speed, 1.0),
    "slow_down": partial(_change_speed, -1.0),
    "approach": partial(_change_distance, -1.0),
    "separate": partial(_change_distance, 1.0),
    "follow": _follow,
    "collide_and_bounce": _collide_and_bounce,
}
"""Motion of each class in `data_pipelines.config.FAMILIES`."""
