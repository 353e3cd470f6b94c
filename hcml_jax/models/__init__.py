"""Flax Linen modules: backbones, the prime motion block, and the heads that teach it."""

from hcml_jax.models.build import BACKBONES, BackboneConfig, build_backbone
from hcml_jax.models.heads import Classifier, FlowHead, Predictors
from hcml_jax.models.layers import TrainMode
from hcml_jax.models.motion_block import MotionBlock, MotionBlockConfig
from hcml_jax.models.resnet import ResNet

__all__ = [
    "BACKBONES",
    "BackboneConfig",
    "Classifier",
    "FlowHead",
    "MotionBlock",
    "MotionBlockConfig",
    "Predictors",
    "ResNet",
    "TrainMode",
    "build_backbone",
]
