import numpy as np
import pytest
from matplotlib.image import imread

from hcml_jax.visualization import draw_confusion, save_figure

CLASSES = ["left", "approach", "up"]
FAMILIES = {"left": "elementary", "approach": "relational", "up": "elementary"}
MATRIX = [[3, 0, 1], [0, 0, 0], [2, 2, 4]]
SHARES = np.array([[0.75, 0, 0.25], [0, 0, 0], [0.25, 0.25, 0.5]])


def test_shares_of_the_true_class_are_shown():
    axes = draw_confusion(MATRIX, CLASSES).axes[0]
    np.testing.assert_allclose(axes.images[0].get_array(), SHARES)
    assert [label.get_text() for label in axes.get_yticklabels()] == CLASSES
    assert axes.get_title() == "mean over classes: 62.5%"  # a class without clips does not count
    numbers = {(t.get_position(), t.get_text()) for t in axes.texts}
    assert ((0, 0), "75") in numbers
    assert ((2, 0), "25") in numbers
    assert len(numbers) == 5


def test_families_are_brought_together_and_parted():
    axes = draw_confusion(MATRIX, CLASSES, FAMILIES).axes[0]
    order = [0, 2, 1]
    np.testing.assert_allclose(axes.images[0].get_array(), SHARES[np.ix_(order, order)])
    assert [label.get_text() for label in axes.get_xticklabels()] == ["left", "up", "approach"]
    horizontal, vertical = axes.lines
    assert list(horizontal.get_ydata()) == list(vertical.get_xdata()) == [1.5, 1.5]
    names = {t.get_text(): t.get_position()[1] for t in axes.texts if t.get_text().isalpha()}
    assert names == {"elementary": 0.5, "relational": 2.0}


def test_many_classes_are_drawn_without_numbers(tmp_path):
    names = [str(i) for i in range(120)]
    axes = draw_confusion(np.eye(120), names).axes[0]
    assert not axes.texts
    assert not len(axes.get_xticks())


def test_the_picture_is_written(tmp_path):
    path = save_figure(draw_confusion(MATRIX, CLASSES, FAMILIES), tmp_path / "confusion.png")
    height, width, _ = imread(path).shape
    assert 300 < height < 800
    assert 300 < width < 800


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.eye(2), CLASSES), r"matrix: \[C, C\] of classes: expected \(3, 3\), found \(2, 2\)"),
        ((-np.eye(3), CLASSES), "expected counts, found -1.0"),
        ((np.eye(3), CLASSES, {"left": "a"}), r"found none for \['approach', 'up'\]"),
    ],
)
def test_what_does_not_fit_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        draw_confusion(*arguments)
