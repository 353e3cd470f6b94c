"""Multiply-adds of a function, and the parameters that it needs, counted from its jaxpr."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.extend import core

from hcml_jax.models.convolution import as_defined


def multiply_adds(function: Callable, *args: Any) -> dict[str, int]:
    """Counts multiply-adds without running anything.

    Args:
      function: any traceable function.
      *args: its arguments, or their `jax.ShapeDtypeStruct`s.

    Returns:
      {"convolutions": ..., "products": ...}: multiply-adds of convolutions (including any product without batch
      dimensions: a 1x1x1 convolution runs as a product with its kernel) and of batched matrix products. Convolutions
      are counted as defined, padding included, whatever form this machine runs. Operations that no output needs are
      not counted; the body of a loop is counted once.
    """
    counts = {"convolutions": 0, "products": 0}
    with as_defined():
        jaxpr = jax.make_jaxpr(function)(*args).jaxpr
    for equation in _equations(jaxpr):
        if equation.primitive.name == "conv_general_dilated":
            counts["convolutions"] += _convolution(equation)
        elif equation.primitive.name == "dot_general":
            _, (batched, _) = equation.params["dimension_numbers"]
            counts["products" if batched else "convolutions"] += _product(equation)
    return counts


def parameters(function: Callable, params: Any, *args: Any) -> int:
    """Counts the numbers in those arrays of `params` that the outputs of `function(params, *args)` need.

    Args:
      function: any traceable function.
      params: a tree of arrays, or of their `jax.ShapeDtypeStruct`s.
      *args: likewise.
    """
    jaxpr = jax.make_jaxpr(function)(params, *args).jaxpr
    needed = {v for equation in _needed(jaxpr) for v in equation.invars if not isinstance(v, core.Literal)}
    needed.update(v for v in jaxpr.outvars if not isinstance(v, core.Literal))
    given = jaxpr.invars[: len(jax.tree.leaves(params))]
    return sum(math.prod(one.aval.shape) for one in given if one in needed)


def _equations(jaxpr) -> Iterator[core.JaxprEqn]:
    """All equations that the outputs need, those of called functions included."""
    for equation in _needed(jaxpr):
        yield equation
        for value in equation.params.values():
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from _equations(inner)


def _needed(jaxpr) -> list[core.JaxprEqn]:
    needed = {v for v in jaxpr.outvars if not isinstance(v, core.Literal)}
    kept = []
    for equation in reversed(jaxpr.eqns):
        if not needed.isdisjoint(equation.outvars):
            kept.append(equation)
            needed.update(v for v in equation.invars if not isinstance(v, core.Literal))
    return kept[::-1]


def _convolution(equation) -> int:
    kernel, layout = equation.invars[1].aval.shape, equation.params["dimension_numbers"].rhs_spec
    outputs = math.prod(equation.outvars[0].aval.shape)
    # The gradient of a strided convolution spreads its input with zeros, which cost nothing.
    zeros = math.prod(equation.params["lhs_dilation"])
    return outputs * math.prod(kernel[d] for d in layout[1:]) // zeros


def _product(equation) -> int:
    (contracted, _), _ = equation.params["dimension_numbers"]
    left = equation.invars[0].aval.shape
    return math.prod(equation.outvars[0].aval.shape) * math.prod(left[d] for d in contracted)
