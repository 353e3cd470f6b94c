"""Which form of the cost volume a motion block runs."""

import jax
import jax.numpy as jnp
import pytest

from hcml_jax.models import motion_block
from hcml_jax.models.convolution import as_defined
from hcml_jax.models.cost import multiply_adds


@pytest.mark.parametrize(("backend", "form"), [("cpu", "cost_volume"), ("gpu", "cost_volume_by_shifts")])
def test_the_backend_decides_on_the_form_but_not_on_what_is_counted(monkeypatch, backend, form):
    block = motion_block.MotionBlock(motion_block.MotionBlockConfig(max_displacement=2, stride=1))
    x = jnp.zeros((1, 2, 4, 4, 8))
    variables = jax.eval_shape(lambda: block.init(jax.random.key(0), x, False))
    counted = multiply_adds(lambda v, x: block.apply(v, x, False), variables, x)
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    assert multiply_adds(lambda v, x: block.apply(v, x, False), variables, x) == counted
    assert counted["products"] > 0
    ran = []
    for name in ("cost_volume", "cost_volume_by_shifts"):
        run = getattr(motion_block, name)
        monkeypatch.setattr(motion_block, name, lambda *a, n=name, run=run, **k: ran.append(n) or run(*a, **k))
    jax.eval_shape(lambda v: block.apply(v, x, False), variables)
    with as_defined():
        jax.eval_shape(lambda v: block.apply(v, x, False), variables)
    assert ran == [form, "cost_volume"]
