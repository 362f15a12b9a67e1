"""Configurations as JSON, and the differences of two of them."""

import dataclasses
import importlib
import json
import typing
from collections.abc import Mapping
from typing import Any

from mres_jax.config._values import coerce, field_types, unknown_field
from mres_jax.errors import ConfigError, MresError

TYPE = "type"  # key that names the class where the field does not


def to_json(config: Any) -> str:
    """Returns a dataclass as indented JSON that `from_json` reads back equal.

    Example:
      >>> from mres_jax.config import Schedule
      >>> from_json(to_json(Schedule(num_steps=5))) == Schedule(num_steps=5)
      True
    """
    return json.dumps(_encode(config), indent=2) + "\n"


def from_json(text: str) -> Any:
    """Returns the dataclass that `to_json` wrote.

    Only classes of this library are looked up, so reading JSON runs no code of its author.

    Raises:
      ConfigError: no JSON, an unknown class or field, or a value of the wrong type.
    """
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise ConfigError(f"config: no JSON ({error.msg}, line {error.lineno}).") from None
    return _decode("config", data, Any)


def diff(before: Any, after: Any) -> list[str]:
    """Returns the fields that differ, one line each.

    Example:
      >>> from mres_jax.config import Schedule
      >>> diff(Schedule(num_steps=5), Schedule(num_steps=7, kind="linear"))
      ["kind: 'cosine' -> 'linear'", 'num_steps: 5 -> 7']
    """
    old, new = _leaves("", _encode(before)), _leaves("", _encode(after))
    return [
        f"{key}: {_show(old, key)} -> {_show(new, key)}"
        for key in sorted(old | new)
        if key not in old or key not in new or old[key] != new[key]
    ]


def _show(leaves: Mapping[str, Any], key: str) -> str:
    return repr(leaves[key]) if key in leaves else "absent"


def _leaves(path: str, data: Any) -> dict[str, Any]:
    """Dotted name -> value, of everything inside."""
    if isinstance(data, Mapping):
        pairs = [(str(key), value) for key, value in data.items()]
    elif isinstance(data, list):
        pairs = [(str(index), value) for index, value in enumerate(data)]
    else:
        return {path: data}
    leaves: dict[str, Any] = {}
    for key, value in pairs:
        if key != TYPE:
            leaves |= _leaves(f"{path}.{key}" if path else key, value)
    return leaves


def _encode(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: _encode(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {TYPE: _public_name(type(value))} | fields
    if isinstance(value, Mapping):
        return {str(key): _encode(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_encode(item) for item in value]
    if value is None or isinstance(value, str | int | float | bool):
        return value
    raise ConfigError(f"config: a {type(value).__name__} cannot be written as JSON.")


def _public_name(cls: type) -> str:
    """`mres_jax.config:Run`: the path that users import, so that files may move behind it."""
    parts = [part for part in cls.__module__.split(".") if not part.startswith("_")]
    return f"{'.'.join(parts)}:{cls.__qualname__}"


def _decode(path: str, data: Any, kind: Any) -> Any:
    if isinstance(data, Mapping) and TYPE in data:
        return _decode_dataclass(path, data)
    if typing.get_origin(kind) is tuple and isinstance(data, list):
        parts = typing.get_args(kind)
        if parts and (parts[0] is Any or dataclasses.is_dataclass(parts[0])):
            return tuple(_decode(f"{path}.{i}", item, parts[0]) for i, item in enumerate(data))
    return coerce(path, data, kind)


def _decode_dataclass(path: str, data: Mapping[str, Any]) -> Any:
    cls = _find_class(path, str(data[TYPE]))
    kinds = field_types(cls)
    values = {}
    for name, value in data.items():
        if name == TYPE:
            continue
        if name not in kinds:
            raise unknown_field(path, name, kinds)
        values[name] = _decode(f"{path}.{name}", value, kinds[name])
    missing = [name for name in _required(cls) if name not in values]
    if missing:
        raise ConfigError(f"{path}: {cls.__name__} needs a value for {', '.join(missing)}.")
    try:
        return cls(**values)
    except MresError:
        raise
    except ValueError as error:  # what a model's configuration raises when sizes do not fit
        raise ConfigError(f"{path}: {error}") from None


def _required(cls: type) -> list[str]:
    absent = dataclasses.MISSING
    return [
        field.name
        for field in dataclasses.fields(cls)
        if field.default is absent and field.default_factory is absent
    ]


def _find_class(path: str, name: str) -> type:
    module, _, cls_name = name.partition(":")
    ours = module.startswith("mres_jax.") and cls_name.isidentifier()
    try:
        cls = getattr(importlib.import_module(module), cls_name, None) if ours else None
    except ImportError:
        cls = None
    if not isinstance(cls, type) or not dataclasses.is_dataclass(cls):
        raise ConfigError(f"{path}: {name!r} is no configuration class of mres_jax.")
    return cls
