"""What all pictures share: how a figure is made and how it is saved."""

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hcml_jax.files import new_file

DPI = 110


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of this size in inches, laid out without overlap, outside pyplot's state."""
    return Figure(figsize=(width, height), dpi=DPI, layout="constrained")


def save_figure(figure: Figure, path) -> Path:
    """Writes a figure as PNG, under its name only once it is complete; makes missing folders.

    Args:
      figure: any matplotlib figure.
      path: target file, by convention ending in .png.

    Returns:
      `path`, as a Path.

    Raises:
      OSError: the file cannot be written; an older file of this name stays as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with new_file(path) as partial:
        figure.savefig(partial, format="png")
    return path


def show_image(axes: Axes, image, *, title="", label="", note=""):
    """Shows an image without ticks: title above, label to the left, note below."""
    axes.imshow(image, interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    axes.set_title(title, fontsize=10)
    axes.set_ylabel(label, fontsize=10)
    axes.set_xlabel(note, fontsize=9)
