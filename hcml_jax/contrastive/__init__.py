"""InfoNCE, its candidates, and what to report of them."""

from hcml_jax.contrastive.candidates import gather_positions, pair_predictions, sample_positions, without_breaks
from hcml_jax.contrastive.info_nce import InfoNCE, choose_form, info_nce, info_nce_and_hits
from hcml_jax.contrastive.report import contrast_report, spread_report
