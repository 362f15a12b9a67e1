"""Rows that hold their files as bytes, in columns or behind a feature -> rows that name them."""

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from mres_jax.data.rows.files import Contained
from mres_jax.data.rows.scan import Found
from mres_jax.data.rows.sources.records import pack_record
from mres_jax.data.rows.types import Fault, shown

MAX_DEPTH = 16  # of lists in objects in lists


def renamed(content: Mapping[str, Any], fields: Mapping[str, str] | None) -> dict[str, Any]:
    """Returns a row with its fields under our names.

    Args:
      content: as the source has it.
      fields: our name -> the source's.

    Raises:
      Fault: a field that should be there is not.
    """
    fields = fields or {}
    if missing := [theirs for theirs in fields.values() if theirs not in content]:
        have = ", ".join(map(shown, content))
        raise Fault("unknown form", f"it has no field {', '.join(missing)}; it has {have}")
    taken = set(fields.values()) | set(fields)
    kept = {key: value for key, value in content.items() if key not in taken}
    return kept | {ours: content[theirs] for ours, theirs in fields.items()}


def hold(number: int, content: Mapping[str, Any] | Fault) -> Found:
    """Returns a row whose bytes are files that it names.

    A file is bytes, or the `{bytes, path}` that Hugging Face writes for a picture; without bytes a
    path is a name. What is an array or a number of numpy becomes plain.

    Args:
      number: of the row.
      content: its fields; or why there are none.
    """
    if isinstance(content, Fault):
        return Found(number, b"", content, Contained({}))
    files: dict[str, bytes] = {}
    try:
        plain = {key: _plain(value, key, files, 0) for key, value in content.items()}
        return Found(number, pack_record(plain, files), plain, Contained(files))
    except Fault as fault:
        return Found(number, b"", fault, Contained({}))
    except (TypeError, ValueError) as error:  # no JSON, such as a date
        reason = f"a field is no text, number, picture or list ({shown(error)})"
        return Found(number, b"", Fault("unknown form", reason), Contained({}))


def _plain(value: Any, key: str, files: dict[str, bytes], depth: int) -> Any:
    if depth > MAX_DEPTH:
        raise Fault("unknown form", f"{key} has lists in lists beyond {MAX_DEPTH}")
    if isinstance(value, bytes):
        return _name(value, f"{key}-{len(files)}", files)
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist(), key, files, depth + 1)
    if isinstance(value, Mapping):
        if value.keys() == {"bytes", "path"}:
            return _picture(value, key, files)
        return {k: _plain(v, str(k), files, depth + 1) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each, key, files, depth + 1) for each in value]
    return value


def _picture(value: Mapping[str, Any], key: str, files: dict[str, bytes]) -> str | None:
    path = os.path.basename(value["path"] or "")
    if value["bytes"] is None:
        return value["path"]
    return _name(value["bytes"], f"{key}-{len(files)}" + (f"-{path}" if path else ""), files)


def _name(content: bytes, name: str, files: dict[str, bytes]) -> str:
    files[name] = content
    return name
