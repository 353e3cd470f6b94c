import numpy as np

from hcml_jax.visualization import draw_motion


def test_what_lies_above_the_median_is_marked():
    frames = np.arange(0, 12, 2)
    motion = np.array([1.0, 5.0, 2.0, 4.0, np.nan, 3.0])
    curve, unknown = draw_motion({"a": (frames, motion), "b": (frames, np.full(6, np.nan))}).axes
    np.testing.assert_array_equal(curve.lines[0].get_ydata(), motion)
    assert set(curve.lines[1].get_ydata()) == {3.0}
    np.testing.assert_array_equal(curve.collections[0].get_offsets(), [(2, 5), (6, 4)])
    assert curve.get_title() == "a" and not unknown.collections
