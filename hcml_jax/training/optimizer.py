"""Optimizers from schedules."""

import jax
import jax.numpy as jnp
import optax

from hcml_jax.methods.base import Schedule


def learning_rate(schedule: Schedule, clips: int, batch_size: int) -> optax.Schedule:
    """Linear warm-up to the peak, then a cosine to zero, or steps (Goyal et al., 2017; Loshchilov and Hutter, 2017).

    Args:
      schedule: the stage's.
      clips: of its training set.
      batch_size: clips a step; the peak grows linearly with it.
    """
    scale = batch_size / schedule.per_clips if schedule.per_clips else 1.0
    peak, warmup = schedule.learning_rate * scale, schedule.warmup_steps(clips, batch_size)
    if schedule.decay == "cosine":
        decay = optax.cosine_decay_schedule(peak, schedule.num_steps(clips, batch_size) - warmup)
    else:
        steps = schedule.milestone_steps(clips, batch_size)  # of a short stage, some may coincide
        tenths = {step - warmup: 0.1 ** steps.count(step) for step in steps}
        decay = optax.piecewise_constant_schedule(peak, tenths)
    rate = optax.join_schedules([optax.linear_schedule(0.0, peak, warmup), decay], [warmup])
    # In float32: optax's arithmetic on an integer step would promote dtypes implicitly.
    return lambda step: rate(jnp.asarray(step, jnp.float32))


def make_optimizer(schedule: Schedule, clips: int, batch_size: int) -> optax.GradientTransformation:
    """The stage's optimizer; see `Schedule`. Weight decay spares biases and batch normalisation."""
    rate = learning_rate(schedule, clips, batch_size)
    clip = optax.clip_by_global_norm(schedule.clip_norm) if schedule.clip_norm else optax.identity()
    decay = optax.add_decayed_weights(
        schedule.weight_decay, mask=lambda params: jax.tree.map(lambda p: p.ndim > 1, params)
    )
    if schedule.optimizer == "adamw":
        return optax.chain(clip, optax.scale_by_adam(), decay, optax.scale_by_learning_rate(rate))
    return optax.chain(clip, decay, optax.sgd(rate, momentum=schedule.momentum))
