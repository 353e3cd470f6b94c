"""One file a paper. `build_method` makes the method that a config names."""

import importlib
import typing
from collections.abc import Mapping
from typing import Any

from hcml_jax.config import ConfigError, build, nearest
from hcml_jax.methods.base import Encoded, Method, Outputs, Schedule, Stage, Term
from hcml_jax.methods.cgm_net import CGMNet
from hcml_jax.methods.fima import FIMA
from hcml_jax.methods.hcml import HCML
from hcml_jax.methods.linear import Linear
from hcml_jax.methods.mscl import MSCL
from hcml_jax.methods.supervised import Supervised

METHODS: dict[str, type[Method]] = {
    "cgm_net": CGMNet,
    "fima": FIMA,
    "hcml": HCML,
    "linear": Linear,
    "mscl": MSCL,
    "supervised": Supervised,
}


def method_class(name: str) -> type[Method]:
    """The class of a method: one of `METHODS`, or "package.module:Class" of anybody's.

    Raises:
      ConfigError: there is none of this name.
    """
    if name in METHODS:
        return METHODS[name]
    module, _, attribute = str(name).partition(":")
    if not attribute:
        raise ConfigError(f"config.method.name: no method {name!r}. {nearest(str(name), METHODS)}")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"config.method.name {name!r} cannot be imported: {error}") from error


def config_class(name: str) -> type:
    """The dataclass of the method's own config: what its `config` is annotated with."""
    return typing.get_type_hints(method_class(name))["config"]


def build_method(config: Mapping[str, Any], num_classes: int) -> Method:
    """Makes a method.

    Args:
      config: `name` (see `method_class`), and the fields of that method's config.
      num_classes: of the data's labels; 0 where there are none.

    Raises:
      ConfigError: for an unknown name or field, or a field of a wrong type or value.
    """
    values = dict(config)
    name = values.pop("name", None)
    return method_class(name)(build(config_class(name), values, "config.method"), num_classes)
