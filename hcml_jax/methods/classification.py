"""Classification of clips, some of which may be unlabelled."""

import jax
import jax.numpy as jnp
import optax


def classification_loss(
    logits: jax.Array, labels: jax.Array
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Mean cross-entropy over the labelled clips.

    Args:
      logits: `[B, classes]`.
      labels: `[B]` int; negative where unlabelled.

    Returns:
      The loss (0 if nothing is labelled) and {"top1": share of labelled clips recognised}.
    """
    labelled = (labels >= 0).astype(jnp.float32)
    count = jnp.maximum(labelled.sum(), 1.0)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.maximum(labels, 0))
    correct = (jnp.argmax(logits, -1).astype(labels.dtype) == labels).astype(jnp.float32)
    return (losses * labelled).sum() / count, {"top1": (correct * labelled).sum() / count}
