"""Configs: every error names the field, and what would be right."""

import dataclasses

import ml_collections
import pytest

from hcml_jax.config import ConfigError, build


@dataclasses.dataclass(frozen=True)
class Inner:
    rate: float = 0.5
    names: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Outer:
    size: int
    inner: Inner = Inner()
    pair: tuple[int, float] = (1, 2.0)
    flag: bool = False
    parts: dict[str, Inner] = dataclasses.field(default_factory=dict)
    maybe: Inner | None = None

    def __post_init__(self):
        if self.size < 0:
            raise ConfigError("size must be 0 or more")


def test_nested_fields_become_dataclasses():
    config = ml_collections.ConfigDict(
        {"size": 3, "inner": {"rate": 1, "names": ("a",)}, "parts": {"x": {"rate": 0.1}}}
    )
    built = build(Outer, config)
    assert built == Outer(3, Inner(1.0, ("a",)), parts={"x": Inner(0.1)})
    assert isinstance(built.inner.rate, float)
    assert build(Outer, {"size": 1, "maybe": None}).maybe is None
    assert build(Outer, {"size": 1, "maybe": {"rate": 0.2}}).maybe == Inner(0.2)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "config.size is missing: Outer needs it"),
        ({"sise": 1}, "config.sise is not a field of Outer. Did you mean 'size'"),
        ({"size": 1, "xyz": 1}, "config.xyz is not a field of Outer. Valid: size, inner"),
        ({"size": "1"}, "config.size must be int, not str '1'"),
        ({"size": 1.0}, "config.size must be int, not float"),
        ({"size": True}, "config.size must be int, not bool"),
        ({"size": 1, "flag": 1}, "config.flag must be bool, not int"),
        ({"size": 1, "inner": {"rat": 1}}, "config.inner.rat is not a field of Inner"),
        ({"size": 1, "inner": 4}, "config.inner must hold named fields"),
        ({"size": 1, "inner": {"names": "ab"}}, "config.inner.names must be a tuple"),
        ({"size": 1, "inner": {"names": (1,)}}, r"config.inner.names\[0\] must be str"),
        ({"size": 1, "pair": (1,)}, "config.pair must have 2 entries, not 1"),
        ({"size": 1, "parts": {"x": {"rate": "a"}}}, "config.parts.x.rate must be float"),
        ({"size": -1}, "config: size must be 0 or more"),
    ],
)
def test_errors_name_the_field(values, message):
    with pytest.raises(ConfigError, match=message):
        build(Outer, values)
