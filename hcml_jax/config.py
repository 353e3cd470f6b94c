"""Typed configuration: dataclasses built from the plain values of `configs/*.py`.

A config file returns an `ml_collections.ConfigDict`; past this module only frozen dataclasses exist, so that a
mistyped or ill-typed field fails at the start of a run, with its full name.
"""

import dataclasses
import difflib
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

T = TypeVar("T")


class UserError(Exception):
    """What a user can mend: `launch.py` prints its message, without a traceback."""


class ConfigError(UserError, ValueError):
    """A config field is unknown, ill-typed, missing or out of range; the message names it."""


def build(cls: type[T], values: Mapping[str, Any], path: str = "config") -> T:
    """Makes the dataclass `cls` from `values`, nested dataclasses and containers included.

    Args:
      cls: a dataclass; its annotations say what each field may hold.
      values: field name -> value, for example an `ml_collections.ConfigDict`.
      path: what to call `values` in error messages.

    Raises:
      ConfigError: for an unknown field (the nearest valid name is offered), a value of another type, a required
        field that is missing, or whatever `cls.__post_init__` refuses.
    """
    if not isinstance(values, Mapping) and not hasattr(values, "items"):
        raise ConfigError(f"{path} must hold named fields ({cls.__name__}), not {values!r}")
    fields = {field.name: field for field in dataclasses.fields(cls) if field.init}
    hints = typing.get_type_hints(cls)
    for name in values:
        if name not in fields:
            raise ConfigError(f"{path}.{name} is not a field of {cls.__name__}. {nearest(name, fields)}")
    for name, field in fields.items():
        if name not in values and _is_required(field):
            raise ConfigError(f"{path}.{name} is missing: {cls.__name__} needs it")
    given = {name: _convert(hints[name], value, f"{path}.{name}") for name, value in values.items()}
    try:
        return cls(**given)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def fill(cls: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """`values` with the defaults of the dataclass `cls` for what they leave out, as plain values.

    Nested dataclasses are filled too. Invalid values are kept, so that `build` reports them.
    """
    hints = typing.get_type_hints(cls)
    filled = dict(values)
    for field in dataclasses.fields(cls):
        if field.name in filled:
            filled[field.name] = _fill_value(hints[field.name], filled[field.name])
        elif not _is_required(field):
            default = field.default
            filled[field.name] = _fill_value(
                hints[field.name], field.default_factory() if default is dataclasses.MISSING else default
            )
    return filled


def _fill_value(hint: Any, value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return dataclasses.asdict(value)
    if not isinstance(value, Mapping):
        return value
    arguments = typing.get_args(hint)
    if typing.get_origin(hint) in (dict, Mapping):
        return {key: _fill_value(arguments[1], item) for key, item in value.items()}
    for cls in (hint, *arguments):
        if dataclasses.is_dataclass(cls):
            return fill(cls, value)
    return value


def nearest(name: str, valid: typing.Iterable[str]) -> str:
    """A sentence that offers the valid name nearest to `name`, or lists the valid ones."""
    valid = list(valid)
    close = difflib.get_close_matches(str(name), valid, n=1)
    return f"Did you mean {close[0]!r}?" if close else f"Valid: {', '.join(map(str, valid)) or 'none'}."


def _is_required(field: dataclasses.Field) -> bool:
    missing = dataclasses.MISSING
    return field.default is missing and field.default_factory is missing


def _convert(hint: Any, value: Any, path: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        return value if isinstance(value, hint) else build(hint, value, path)
    if origin in (typing.Union, types.UnionType):
        return _convert_optional(arguments, value, path)
    if origin is tuple:
        return _convert_tuple(arguments, value, path)
    if origin in (dict, Mapping):
        if not hasattr(value, "items"):
            raise ConfigError(f"{path} must hold named fields, not {value!r}")
        return {key: _convert(arguments[1], item, f"{path}.{key}") for key, item in value.items()}
    if hint is float and type(value) is int:
        return float(value)
    if hint is not Any and type(value) is not hint:
        raise ConfigError(f"{path} must be {hint.__name__}, not {type(value).__name__} {value!r}")
    return value


def _convert_optional(arguments: tuple, value: Any, path: str) -> Any:
    if value is None and type(None) in arguments:
        return None
    (hint,) = (argument for argument in arguments if argument is not type(None))
    return _convert(hint, value, path)


def _convert_tuple(arguments: tuple, value: Any, path: str) -> tuple:
    if not isinstance(value, (tuple, list)):
        raise ConfigError(f"{path} must be a tuple, not {type(value).__name__} {value!r}")
    if arguments[-1] is Ellipsis:
        arguments = (arguments[0],) * len(value)
    if len(arguments) != len(value):
        raise ConfigError(f"{path} must have {len(arguments)} entries, not {len(value)}: {value!r}")
    pairs = zip(arguments, value, strict=True)
    return tuple(_convert(hint, item, f"{path}[{i}]") for i, (hint, item) in enumerate(pairs))
