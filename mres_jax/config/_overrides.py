"""Dotted overrides: `--schedule.num_steps=20` on a tree of dataclasses."""

import dataclasses
import typing
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from mres_jax.config._values import coerce, field_types, parse_text, unknown_field
from mres_jax.errors import ConfigError, MresError

T = TypeVar("T")
Entries = Mapping[tuple[str, ...], str]  # names below a field -> text; () is the field itself
NONE = ("none", "null")


def apply_overrides(config: T, overrides: Sequence[str]) -> T:
    """Returns a configuration with some fields replaced.

    All are applied at once, so two fields that must change together can; of two overrides of one
    field the later wins.

    Args:
      config: a dataclass; fields may be dataclasses, tuples of dataclasses, or mappings.
      overrides: `a.b=c`, with or without leading `--`; `-` in names reads as `_`. A position in a
        tuple is a number (`ladder.0.max_patches=512`); a mapping is given whole, as JSON, or by
        key (`policies.native=0.5`). What is None in the run file begins empty (a mapping) or with
        its defaults (a dataclass).

    Raises:
      ConfigError: an unknown field (with the nearest name and the list), a value of the wrong
        type, or a combination that the configuration itself refuses.
    """
    entries: Entries = {}
    for text in overrides:
        path, sep, value = text.removeprefix("--").partition("=")
        if not sep or not path:
            raise ConfigError(f"override {text!r}: write --name.of.field=value.")
        entries[tuple(path.split("."))] = value
    return _replace(type(config).__name__, "", config, entries)


def _grouped(entries: Entries) -> dict[str, dict[tuple[str, ...], str]]:
    """First name -> what is set in it; its own value stands under ()."""
    groups: dict[str, dict[tuple[str, ...], str]] = {}
    for (name, *rest), value in entries.items():
        groups.setdefault(name, {})[tuple(rest)] = value
    return groups


def _replace(owner: str, path: str, config: Any, entries: Entries) -> Any:
    kinds = field_types(type(config))
    changes = {}
    for given, inside in _grouped(entries).items():
        name = given.replace("-", "_")
        if name not in kinds:
            raise unknown_field(path or owner, name, kinds)
        changes[name] = _new_value(
            f"{path}.{name}" if path else name, getattr(config, name), kinds[name], inside
        )
    try:
        return dataclasses.replace(config, **changes)
    except MresError:
        raise
    except ValueError as error:  # what a model's configuration raises when sizes do not fit
        raise ConfigError(str(error)) from None


def _new_value(path: str, old: Any, kind: Any, entries: Entries) -> Any:
    whole, part = entries.get(()), _not_none(kind)
    if _is_mapping(old, kind, whole):
        return _new_mapping(path, old, kind, entries)
    inside = [".".join(names) for names in entries if names]
    if whole is not None and inside:
        raise ConfigError(f"{path}={whole}: {path}.{inside[0]} is given too; give one of the two.")
    if dataclasses.is_dataclass(old) or dataclasses.is_dataclass(part):
        return _new_dataclass(path, old, kind, entries)
    if whole is not None:
        return parse_text(path, whole, kind)
    if isinstance(old, tuple):
        return _replace_items(path, old, kind, entries)
    raise ConfigError(f"{path}: has no fields, but {path}.{inside[0]} was given.")


def _is_mapping(old: Any, kind: Any, whole: str | None) -> bool:
    """Whether a mapping is set: what may be something else too is what its text or keys say."""
    if typing.get_origin(_not_none(kind)) is Mapping:
        return True
    may_be = any(typing.get_origin(part) is Mapping for part in typing.get_args(kind))
    if whole is not None:
        return may_be and whole.startswith("{")
    return isinstance(old, Mapping) or (may_be and old is None)


def _new_dataclass(path: str, old: Any, kind: Any, entries: Entries) -> Any:
    part = _not_none(kind)
    if () not in entries:
        return _replace(path, path, _defaults(path, part) if old is None else old, entries)
    if part is not kind and entries[()].lower() in NONE:
        return None
    names = ", ".join(field_types(part if old is None else type(old)))
    raise ConfigError(f"{path}={entries[()]}: cannot be set as a whole; set one of {names}.")


def _defaults(path: str, cls: Any) -> Any:
    """What overrides inside a field that is None begin with."""
    try:
        return cls()
    except TypeError:
        raise ConfigError(
            f"{path}: is none in the run file, and not all fields of a {cls.__name__} have a "
            "default; write it there."
        ) from None


def _new_mapping(path: str, old: Any, kind: Any, entries: Entries) -> dict | None:
    """Keys may hold dots (`scale:0.5`): names are joined again."""
    keys = {".".join(names): value for names, value in entries.items() if names}
    base = parse_text(path, entries[()], kind) if () in entries else old
    if not keys:
        return base
    kinds = [kind, *typing.get_args(kind)]
    part = next(typing.get_args(k)[1] for k in kinds if typing.get_origin(k) is Mapping)
    return dict(base or {}) | {
        key: coerce(f"{path}.{key}", value, part) for key, value in keys.items()
    }


def _not_none(kind: Any) -> Any:
    """The type without the None that may stand beside it."""
    parts = [part for part in typing.get_args(kind) if part is not type(None)]
    is_optional = type(None) in typing.get_args(kind)
    return parts[0] if is_optional and len(parts) == 1 else kind


def _replace_items(path: str, old: tuple, kind: Any, entries: Entries) -> tuple:
    items = list(old)
    parts = typing.get_args(kind)
    for key, inside in _grouped(entries).items():
        if not key.isdigit() or int(key) >= len(items):
            raise ConfigError(f"{path}: no entry {key!r}; it has {len(items)}, from 0.")
        index = int(key)
        part = parts[0] if len(parts) == 2 and parts[1] is Ellipsis else parts[index]
        items[index] = _new_value(f"{path}.{key}", items[index], part, inside)
    return tuple(items)
