import jax.numpy as jnp
import numpy as np
import pytest

from hcml_jax.ops.check import check_equal, checked


@pytest.mark.parametrize("shape", [(4, 5, 2), (3, 4, 5, 2), (1, 3, 4, 5, 2)])
def test_leading_axes_are_free_after_an_ellipsis(shape):
    assert checked("flow", np.zeros(shape, np.float32), "... H W 2").shape == shape


@pytest.mark.parametrize(
    ("value", "axes", "message"),
    [
        (np.zeros((2, 3), np.float32), "B T H", r"x: expected shape \[B, T, H\], found \[2, 3\]"),
        (np.zeros((2, 3, 4), np.float32), "B T", r"expected shape \[B, T\], found \[2, 3, 4\]"),
        (np.zeros((3,), np.float32), "... H W", r"expected shape \[..., H, W\], found \[3\]"),
        (np.zeros((4, 3), np.float32), "... 2", r"expected shape \[..., 2\], found \[4, 3\]"),
        (np.zeros((4,), np.int32), "N", "expected floating numbers, found int32"),
    ],
)
def test_what_does_not_fit_is_named(value, axes, message):
    with pytest.raises(ValueError, match=message):
        checked("x", value, axes)


def test_bfloat16_counts_as_floating():
    assert checked("x", jnp.zeros(3, jnp.bfloat16), "N").dtype == jnp.bfloat16


def test_unequal_shapes_are_shown():
    with pytest.raises(ValueError, match=r"flow: expected \(2, 3\), found \(3, 2\)"):
        check_equal("flow", (3, 2), (2, 3))
