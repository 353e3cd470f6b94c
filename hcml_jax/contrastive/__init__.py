"""InfoNCE, its candidates, and what to report of them."""

from hcml_jax.contrastive.candidates import centre, comparable, gather_positions, pair_predictions, sample_positions
from hcml_jax.contrastive.info_nce import InfoNCE, choose_form, info_nce, info_nce_and_hits
from hcml_jax.contrastive.local_motion import local_motion_contrast, local_motion_contrast_and_hits
from hcml_jax.contrastive.multi_positive import info_nce_multi, info_nce_multi_and_hits, info_nce_of_clips
from hcml_jax.contrastive.places import activation, foreground, pixel_positives
from hcml_jax.contrastive.queue import enqueue, info_nce_with_queue, queue_ages
from hcml_jax.contrastive.report import contrast_report, spread_report
from hcml_jax.contrastive.temporal import info_nce_in_time
