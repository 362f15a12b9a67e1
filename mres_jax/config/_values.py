"""Text and JSON values -> the type that a field declares."""

import dataclasses
import difflib
import json
import math
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any, Literal, Union

from mres_jax.errors import ConfigError

_TRUE, _FALSE = ("true", "yes", "1"), ("false", "no", "0")


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Returns `" Did you mean 'x'?"`, or nothing where nothing is near.

    Example:
      >>> did_you_mean("natve", ["native", "fixed"])
      " Did you mean 'native'?"
      >>> did_you_mean("zzz", ["native", "fixed"])
      ''
    """
    close = difflib.get_close_matches(word, list(known), n=1)
    return f" Did you mean {close[0]!r}?" if close else ""


def field_types(cls: type) -> dict[str, Any]:
    """Returns the declared type of every field of a dataclass, by name."""
    hints = typing.get_type_hints(cls)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls)}


def unknown_field(path: str, name: str, known: Iterable[str]) -> ConfigError:
    """Returns the error for a field that does not exist, with the nearest one and the list."""
    names = list(known)
    return ConfigError(
        f"{path}: no field {name!r}.{did_you_mean(name, names)} Fields here: {', '.join(names)}."
    )


def type_name(kind: Any) -> str:
    """Returns a type as a user would write it."""
    if kind is type(None):
        return "none"
    if typing.get_origin(kind) is Literal:
        return "one of " + ", ".join(str(value) for value in typing.get_args(kind))
    if _is_union(kind):
        return " or ".join(type_name(part) for part in typing.get_args(kind))
    if typing.get_origin(kind) is None and isinstance(kind, type):
        return {"int": "a whole number", "float": "a number", "str": "text"}.get(
            kind.__name__, kind.__name__
        )
    return str(kind).replace("collections.abc.", "").replace("typing.", "")


def _is_union(kind: Any) -> bool:
    return typing.get_origin(kind) in (Union, types.UnionType)


def _wrong(path: str, value: Any, kind: Any) -> ConfigError:
    return ConfigError(f"{path}={value}: not {type_name(kind)}.")


def parse_text(path: str, text: str, kind: Any) -> Any:
    """Returns the value of a command-line override.

    Args:
      path: dotted name, for the error.
      text: what stands after `=`.
      kind: declared type: bool, int, float, str, Literal, tuple, Mapping, or one of them or None.

    Raises:
      ConfigError: `text` is not of that type.
    """
    if _is_union(kind):
        return _parse_union(path, text, kind)
    origin = typing.get_origin(kind)
    if kind is bool:
        if text.lower() in _TRUE + _FALSE:
            return text.lower() in _TRUE
        raise ConfigError(f"{path}={text}: not true or false.")
    if kind is str:
        return text
    if kind is type(None) and text.lower() in ("none", "null"):
        return None
    if origin is Literal:
        return _choose(path, text, kind)
    if kind in (int, float):
        return _number(path, text, kind)
    if origin is tuple:
        values = _json(path, text, kind) if text.startswith("[") else _split(text)
        return coerce(path, values, kind)
    if origin in (Mapping, dict):
        return coerce(path, _json(path, text, kind), kind)
    raise ConfigError(f"{path}={text}: cannot be given as text; set one of its fields.")


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _json(path: str, text: str, kind: Any) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ConfigError(
            f"{path}={text}: not JSON ({error.msg}); give {type_name(kind)}."
        ) from None


def _parse_union(path: str, text: str, kind: Any) -> Any:
    mappings = [part for part in typing.get_args(kind) if typing.get_origin(part) is Mapping]
    if mappings and text.startswith("{"):  # also a legal text
        return parse_text(path, text, mappings[0])
    # None first: "none" is also a legal text
    parts = sorted(typing.get_args(kind), key=lambda part: part is not type(None))
    for part in parts:
        try:
            return parse_text(path, text, part)
        except ConfigError:
            continue
    raise _wrong(path, text, kind)


def _choose(path: str, value: Any, kind: Any) -> Any:
    for choice in typing.get_args(kind):
        if str(choice) == str(value):
            return choice
    hint = did_you_mean(str(value), [str(choice) for choice in typing.get_args(kind)])
    raise ConfigError(f"{path}={value}: not {type_name(kind)}.{hint}")


def _number(path: str, text: str, kind: type) -> int | float:
    try:
        value = kind(text)
    except ValueError:
        raise _wrong(path, text, kind) from None
    if not math.isfinite(value):
        raise ConfigError(f"{path}={text}: not a finite number.")
    return value


def coerce(path: str, value: Any, kind: Any) -> Any:
    """Returns a JSON value as the declared type; texts inside are read like overrides.

    Raises:
      ConfigError: it is not of that type.
    """
    if kind is Any:
        return value
    if isinstance(value, str):
        return parse_text(path, value, kind)
    if _is_union(kind):
        return _coerce_union(path, value, kind)
    origin = typing.get_origin(kind)
    if origin is tuple and isinstance(value, list | tuple):
        return _coerce_tuple(path, value, kind)
    if origin in (Mapping, dict) and isinstance(value, Mapping):
        part = typing.get_args(kind)[1]
        return {str(key): coerce(f"{path}.{key}", item, part) for key, item in value.items()}
    if origin is Literal:
        return _choose(path, value, kind)
    return _coerce_plain(path, value, kind)


def _coerce_plain(path: str, value: Any, kind: Any) -> Any:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if kind is float and is_number:
        return _number(path, repr(value), float)
    if (
        isinstance(kind, type)
        and isinstance(value, kind)
        and (kind is bool or not isinstance(value, bool))
    ):
        return value
    raise _wrong(path, value, kind)


def _coerce_union(path: str, value: Any, kind: Any) -> Any:
    for part in typing.get_args(kind):
        try:
            return coerce(path, value, part)
        except ConfigError:
            continue
    raise _wrong(path, value, kind)


def _coerce_tuple(path: str, value: Any, kind: Any) -> tuple:
    parts = typing.get_args(kind)
    if len(parts) == 2 and parts[1] is Ellipsis:
        parts = (parts[0],) * len(value)
    if len(parts) != len(value):
        raise ConfigError(f"{path}: {len(value)} values, but it takes {len(parts)}.")
    return tuple(
        coerce(f"{path}.{index}", item, part)
        for index, (item, part) in enumerate(zip(value, parts, strict=True))
    )
