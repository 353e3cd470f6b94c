import numpy as np
import pytest
from matplotlib.image import imread

from hcml_jax.visualization import draw_retrieval, save_figure

Q, K, T, H, W = 2, 3, 4, 6, 8
CLASSES = ["left", "right", "up"]


def clips(seed, *lead):
    return np.random.default_rng(seed).integers(0, 256, (*lead, T, H, W, 3), np.uint8)


def arguments():
    return {
        "queries": clips(0, Q),
        "retrieved": {"level0": clips(1, Q, K), "level1": clips(2, Q, K - 1)},
        "query_labels": [2, 0],
        "retrieved_labels": {"level0": [[2, 1, 0], [1, 1, 0]], "level1": [[2, 2], [0, 1]]},
        "classes": CLASSES,
    }


def grids(figure):
    """For each query the axes [level, 1 + K]."""
    return [np.array(block.axes).reshape(2, 1 + K) for block in figure.subfigs]


def test_clips_stand_beside_their_query_by_level():
    figure = draw_retrieval(**arguments())
    for q, grid in enumerate(grids(figure)):
        strip = grid[1, 2].images[0].get_array()  # second nearest clip of level1
        chosen = arguments()["retrieved"]["level1"][q, 1, [0, 2, 3]]
        for i, frame in enumerate(chosen):
            np.testing.assert_array_equal(strip[:, i * (W + 1) : i * (W + 1) + W], frame)
        assert [row[1].get_ylabel() for row in grid] == ["level0", "level1"]
    assert grids(figure)[0][0, 0].get_title() == "query: up"


def test_borders_say_whether_the_class_is_the_query_s():
    first, second = grids(draw_retrieval(**arguments()))
    found = [
        [(axes.get_title(), axes.spines["left"].get_edgecolor()[1] > 0.5) for axes in grid[0, 1:]]
        for grid in (first, second)
    ]
    assert found[0] == [("up", True), ("right", False), ("left", False)]
    assert found[1] == [("right", False), ("right", False), ("left", True)]


def test_a_level_with_fewer_clips_leaves_its_last_places_empty():
    grid = grids(draw_retrieval(**arguments()))[0]
    assert not grid[1, 3].axison
    assert not grid[1, 3].images


def test_the_picture_is_written(tmp_path):
    height, width, _ = imread(save_figure(draw_retrieval(**arguments()), tmp_path / "retrieval.png")).shape
    assert 200 < height < 800
    assert 600 < width < 1200


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"queries": clips(0)}, r"queries: expected shape \[Q, T, H, W, 3\]"),
        ({"query_labels": [0]}, "query_labels: shape of the labels"),
        ({"query_labels": [0, 3]}, "query_labels: expected labels 0 to 2, found 0 to 3"),
        ({"query_labels": [-1, 0]}, "found -1 to 0"),
        ({"retrieved": {"level0": clips(1, Q, K)}}, "retrieved_labels: levels"),
        ({"queries": clips(0, Q + 1), "query_labels": [0, 0, 0]}, "level0: shape"),
    ],
)
def test_what_does_not_fit_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        draw_retrieval(**(arguments() | change))
