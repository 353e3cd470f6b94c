import pytest
from matplotlib.image import imread

from hcml_jax.visualization.figure import new_figure, save_figure


def test_a_figure_is_saved_as_png_of_its_size(tmp_path):
    path = save_figure(new_figure(2, 3), tmp_path / "new" / "picture.png")
    assert path == tmp_path / "new" / "picture.png"
    assert path.read_bytes().startswith(b"\x89PNG")
    height, width, _ = imread(path).shape
    assert width * 3 == height * 2 > 200
    assert [f.name for f in path.parent.iterdir()] == ["picture.png"]


def test_a_failed_save_leaves_the_older_picture(tmp_path):
    path = tmp_path / "picture.png"
    path.write_text("older")
    figure = new_figure(2, 3)
    figure.text(0, 0, "$\\unknown$")  # fails while it is drawn
    with pytest.raises(ValueError, match="unknown"):
        save_figure(figure, path)
    assert path.read_text() == "older"
    assert [f.name for f in tmp_path.iterdir()] == ["picture.png"]


def test_a_save_that_cannot_be_finished_leaves_nothing_behind(tmp_path):
    (tmp_path / "picture.png").mkdir()
    with pytest.raises(OSError, match="picture"):
        save_figure(new_figure(2, 3), tmp_path / "picture.png")
    assert [f.name for f in tmp_path.iterdir()] == ["picture.png"]
