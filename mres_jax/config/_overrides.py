"""Dotted overrides: `--schedule.num_steps=20` on a tree of dataclasses."""

import dataclasses
import typing
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from mres_jax.config._values import coerce, field_types, parse_text, unknown_field
from mres_jax.errors import ConfigError, MresError

T = TypeVar("T")


def apply_overrides(config: T, overrides: Sequence[str]) -> T:
    """Returns a configuration with some fields replaced.

    All are applied at once, so two fields that must change together can; of two overrides of one
    field the later wins.

    Args:
      config: a dataclass; fields may be dataclasses, tuples of dataclasses, or mappings.
      overrides: `a.b=c`, with or without leading `--`; `-` in names reads as `_`. A position in a
        tuple is a number (`ladder.0.max_patches=512`); a mapping is given whole, as JSON, or by
        key (`policies.native=0.5`).

    Raises:
      ConfigError: an unknown field (with the nearest name and the list), a value of the wrong
        type, or a combination that the configuration itself refuses.
    """
    tree: dict[str, Any] = {}
    for text in overrides:
        path, sep, value = text.removeprefix("--").partition("=")
        if not sep or not path:
            raise ConfigError(f"override {text!r}: write --name.of.field=value.")
        _insert(tree, text, path.split("."), value)
    return _replace(type(config).__name__, "", config, tree)


def _insert(tree: dict[str, Any], text: str, names: Sequence[str], value: str) -> None:
    for name in names[:-1]:
        tree = tree.setdefault(name, {})
        if not isinstance(tree, dict):
            raise ConfigError(f"override {text!r}: {name!r} is set as a whole before.")
    if isinstance(tree.get(names[-1]), dict):
        raise ConfigError(f"override {text!r}: a field inside {names[-1]!r} is set before.")
    tree[names[-1]] = value


def _replace(owner: str, path: str, config: Any, tree: Mapping[str, Any]) -> Any:
    kinds = field_types(type(config))
    changes = {}
    for given, value in tree.items():
        name = given.replace("-", "_")
        if name not in kinds:
            raise unknown_field(path or owner, name, kinds)
        changes[name] = _new_value(
            f"{path}.{name}" if path else name, getattr(config, name), kinds[name], value
        )
    try:
        return dataclasses.replace(config, **changes)
    except MresError:
        raise
    except ValueError as error:  # what a model's configuration raises when sizes do not fit
        raise ConfigError(str(error)) from None


def _new_value(path: str, old: Any, kind: Any, value: Any) -> Any:
    if not isinstance(value, dict):
        if dataclasses.is_dataclass(old):
            names = ", ".join(field_types(type(old)))
            raise ConfigError(f"{path}={value}: cannot be set as a whole; set one of {names}.")
        return parse_text(path, value, kind)
    if dataclasses.is_dataclass(old):
        return _replace(path, path, old, value)
    if isinstance(old, Mapping):
        return _merge_mapping(path, old, kind, value)
    if isinstance(old, tuple):
        return _replace_items(path, old, kind, value)
    raise ConfigError(f"{path}: has no fields, but {path}.{next(iter(value))} was given.")


def _merge_mapping(path: str, old: Mapping, kind: Any, tree: Mapping[str, Any]) -> dict:
    part = typing.get_args(kind)[1]
    return dict(old) | {
        key: coerce(f"{path}.{key}", value, part) for key, value in _flat_keys(tree)
    }


def _flat_keys(tree: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Keys of a mapping may hold dots (`scale:0.5`): joins what was split there."""
    pairs = []
    for key, value in tree.items():
        inside = isinstance(value, dict)
        pairs += _flat_keys(value, f"{prefix}{key}.") if inside else [(prefix + key, value)]
    return pairs


def _replace_items(path: str, old: tuple, kind: Any, tree: Mapping[str, Any]) -> tuple:
    items = list(old)
    parts = typing.get_args(kind)
    for key, value in tree.items():
        if not key.isdigit() or int(key) >= len(items):
            raise ConfigError(f"{path}: no entry {key!r}; it has {len(items)}, from 0.")
        index = int(key)
        part = parts[0] if len(parts) == 2 and parts[1] is Ellipsis else parts[index]
        items[index] = _new_value(f"{path}.{key}", items[index], part, value)
    return tuple(items)
