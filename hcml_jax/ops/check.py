"""The shape check that every public function on arrays runs first."""

import jax
import jax.numpy as jnp


def checked(name: str, value, axes: str, kind=jnp.floating) -> jax.Array:
    """Returns `value` as a jax array after checking its number of axes and its kind.

    Args:
      name: what the caller calls the argument, for the error.
      value: a numpy or jax array, or nested numbers.
      axes: the names of the axes, separated by spaces: "B T H W C"; a leading "..." stands for
        any number of axes, also none. An axis written as a number must have that size.
      kind: the numpy kind its numbers must have: jnp.floating, jnp.integer, jnp.number.

    Raises:
      ValueError: the number of axes, a size or the kind is not as asked.
    """
    array = jnp.asarray(value)
    if not jnp.issubdtype(array.dtype, kind):
        raise ValueError(f"{name}: expected {kind.__name__} numbers, found {array.dtype}")
    names = axes.split()
    tail = [axis for axis in names if axis != "..."]
    spare = array.ndim - len(tail)
    fits = spare >= 0 if "..." in names else spare == 0
    sizes = array.shape[max(spare, 0) :]
    if not fits or any(a.isdigit() and int(a) != n for a, n in zip(tail, sizes, strict=True)):
        wanted = ", ".join(names)
        raise ValueError(f"{name}: expected shape [{wanted}], found {list(array.shape)}")
    return array


def check_equal(what: str, found, expected):
    """Raises ValueError unless two shapes (or sizes) are equal.

    Args:
      what: what the two are, in words: "flow and images: [..., H, W]".
      found: the shape or size that is there.
      expected: the one that would be right.
    """
    if found != expected:
        raise ValueError(f"{what}: expected {expected}, found {found}")
