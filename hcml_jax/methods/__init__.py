"""One file a paper. `build_method` makes the method that a config names."""

from collections.abc import Mapping
from typing import Any

from hcml_jax.config import ConfigError, build, nearest
from hcml_jax.methods.base import Method, Outputs, Schedule, Stage
from hcml_jax.methods.hcml import HCML
from hcml_jax.methods.hcml_config import HCMLConfig
from hcml_jax.methods.supervised import Supervised, SupervisedConfig

METHODS = {"hcml": (HCML, HCMLConfig), "supervised": (Supervised, SupervisedConfig)}

__all__ = ["METHODS", "Method", "Outputs", "Schedule", "Stage", "build_method"]


def build_method(config: Mapping[str, Any], num_classes: int) -> Method:
    """Makes a method.

    Args:
      config: `name`, one of `METHODS`, and the fields of that method's config.
      num_classes: of the data's labels; 0 where there are none.

    Raises:
      ConfigError: for an unknown name or field, or a field of a wrong type or value.
    """
    values = dict(config)
    name = values.pop("name", None)
    if name not in METHODS:
        raise ConfigError(f"config.method.name: no method {name!r}. {nearest(str(name), METHODS)}")
    method, fields = METHODS[name]
    return method(build(fields, values, "config.method"), num_classes)
