"""Where a network looks: Grad-CAM++ (HCML Figure 6), and maps of activation that need no class."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from hcml_jax.methods.base import Method, Variables


def grad_cam(method: Method, variables: Variables, clips, classes=None) -> tuple[jax.Array, jax.Array]:
    """Grad-CAM++ (Chattopadhyay et al., 2018, eq. 19) of the last features: where the evidence for a class lies.

    Args:
      method, variables: of a network with class scores.
      clips: `[B, T, H, W, 3]`, uint8 or float `[0, 1]`.
      classes: int `[B]`, one a clip; None: those of the highest scores.

    Returns:
      The classes, and float32 `[B, T', H', W']`, 0 or more, on the grid of the module `method.attended`.
    """
    classes, features, gradient = feature_gradient(method, variables, clips, classes)
    places = (1, 2, 3)
    square, cube = gradient**2, gradient**3
    share = 2 * square + features.sum(places, keepdims=True) * cube
    share = jnp.where(square > 0, square / jnp.where(share == 0, 1.0, share), 0.0)
    weights = (share * nn.relu(gradient)).sum(places, keepdims=True)
    return classes, nn.relu((weights * features).sum(-1))


def activation(method: Method, variables: Variables, clips) -> jax.Array:
    """The norm of the last features at each place, whatever the class: float32 `[B, T', H', W']`."""
    _, features = _forward(method, variables, clips, None)
    return jnp.linalg.norm(features.astype(jnp.float32), axis=-1)


def feature_gradient(
    method: Method, variables: Variables, clips, classes=None
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The classes (see `grad_cam`), the last features `[B, T', H', W', C]`, float32, and the gradient of each clip's
    class score with respect to them."""
    shape = jax.eval_shape(lambda: _forward(method, variables, clips, None)[1])

    def score(change):
        logits, features = _forward(method, variables, clips, change)
        chosen = logits.argmax(1) if classes is None else jnp.asarray(classes)
        return jnp.take_along_axis(logits, chosen[:, None], 1).sum(), (chosen, features)

    gradient, (chosen, features) = jax.grad(score, has_aux=True)(jnp.zeros(shape.shape, jnp.float32))
    return chosen, features.astype(jnp.float32), gradient


def _forward(method: Method, variables: Variables, clips, change) -> tuple[Any, jax.Array]:
    """Class scores, and the last features, to which `change` is added."""
    path, found = tuple(method.attended.split("/")), []

    def add(call, args, kwargs, context):
        output = call(*args, **kwargs)
        if context.method_name == "__call__" and context.module.path == path:
            found.append(output)
            return output if change is None else output + change.astype(output.dtype)
        return output

    with nn.intercept_methods(add):
        logits = method.encode(variables, clips).logits
    (features,) = found
    return logits, features
