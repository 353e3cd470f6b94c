"""What a form of InfoNCE gives, for comparing forms."""

import jax
import jax.numpy as jnp

from hcml_jax.contrastive import info_nce_and_hits


def outcome(form, queries, keys, positives, temperature, owners, mesh):
    """Losses, hits, and gradients of queries, keys and temperature."""
    weights = jnp.linspace(-1, 2, len(queries))

    def total(queries, keys, temperature):
        losses, hits = info_nce_and_hits(
            queries, keys, positives, temperature=temperature, form=form, mesh=mesh, owners=owners
        )
        return jnp.vdot(weights, losses), (losses, hits)

    gradient = jax.jit(jax.grad(total, (0, 1, 2), has_aux=True))
    gradients, outputs = gradient(queries, keys, temperature)
    return *outputs, *gradients
