"""InfoNCE, its candidates, and what to report of them."""

from hcml_jax.contrastive.candidates import (
    gather_positions,
    negative_counts,
    pair_predictions,
    sample_positions,
)
from hcml_jax.contrastive.info_nce import cosine_similarity, info_nce
from hcml_jax.contrastive.report import contrast_report, spread_report

__all__ = [
    "contrast_report",
    "cosine_similarity",
    "gather_positions",
    "info_nce",
    "negative_counts",
    "pair_predictions",
    "sample_positions",
    "spread_report",
]
