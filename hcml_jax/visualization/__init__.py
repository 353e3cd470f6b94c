"""Pictures of a run: each `draw_x` makes a matplotlib figure, each `x_figure` writes it as PNG."""

from hcml_jax.visualization.confusion import confusion_figure, draw_confusion
from hcml_jax.visualization.curves import curves_figure, draw_curves
from hcml_jax.visualization.figure import save_figure
from hcml_jax.visualization.flow import draw_flow, flow_figure
from hcml_jax.visualization.retrieval import draw_retrieval, retrieval_figure

__all__ = [
    "confusion_figure",
    "curves_figure",
    "draw_confusion",
    "draw_curves",
    "draw_flow",
    "draw_retrieval",
    "flow_figure",
    "retrieval_figure",
    "save_figure",
]
