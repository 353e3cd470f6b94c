"""Flax Linen modules: backbones, the prime motion block, and the heads that teach it."""

from hcml_jax.models.backbone import Backbone, FeatureSpec
from hcml_jax.models.build import BACKBONES, BackboneConfig, Normalisation, build_backbone
from hcml_jax.models.heads import Classifier, FlowHead, Predictors, Projection, SideBySide
from hcml_jax.models.layers import TrainMode
from hcml_jax.models.motion_aligner import MotionAligner
from hcml_jax.models.motion_block import MotionBlock, MotionBlockConfig
from hcml_jax.models.motion_decoder import MotionDecoder, MotionDecoderConfig
from hcml_jax.models.motion_map_network import MotionMapConfig, MotionMapNetwork, Moved
from hcml_jax.models.motion_upsampler import MotionMaps
from hcml_jax.models.pyramid import TemporalPyramid
from hcml_jax.models.recogniser import (
    LinearProbe,
    MotionHierarchy,
    Recognised,
    Recogniser,
    SideBranch,
    SideOutputs,
    paired,
    pooled,
)
from hcml_jax.models.two_stream import Stream, TwoStream
