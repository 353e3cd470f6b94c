"""Hierarchical contrastive motion learning for video, in JAX and Flax."""

__version__ = "0.1.0"


def load(workdir, stage=""):
    """Loads a trained network; see `hcml_jax.inference.load`."""
    from hcml_jax import inference

    return inference.load(workdir, stage)
