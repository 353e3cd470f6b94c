"""Pictures of a run: each `draw_x` makes a matplotlib figure, `save_figure` writes it as PNG."""

from hcml_jax.visualization.confusion import draw_confusion
from hcml_jax.visualization.curves import draw_curves
from hcml_jax.visualization.figure import save_figure
from hcml_jax.visualization.flow import draw_flow
from hcml_jax.visualization.motion import draw_motion
from hcml_jax.visualization.retrieval import draw_retrieval
from hcml_jax.visualization.similarity import draw_similarities
from hcml_jax.visualization.strips import draw_strips
