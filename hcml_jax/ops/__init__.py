"""Parameter-free functions on arrays."""

from hcml_jax.ops.cells import cell_centres, cell_diagonals
from hcml_jax.ops.cost_volume import cost_volume, cost_volume_by_shifts
from hcml_jax.ops.flow import end_point_error, flow_to_image, rotate_flow
from hcml_jax.ops.frame_difference import frame_difference
from hcml_jax.ops.image_quality import psnr, ssim
from hcml_jax.ops.losses import charbonnier, photometric_loss, smoothness_loss
from hcml_jax.ops.motion_difference import foreground_weights, motion_difference
from hcml_jax.ops.motion_maps import apply_motion_maps, copying_filter, filter_size, flow_of_maps, guided_similarity
from hcml_jax.ops.normalise import unit_vectors
from hcml_jax.ops.periodic_shuffle import periodic_shuffle
from hcml_jax.ops.resize import avg_pool_to, resize_area, resize_flow
from hcml_jax.ops.warp import backward_warp
