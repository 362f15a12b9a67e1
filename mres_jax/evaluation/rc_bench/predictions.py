"""Answers of any model: JSON lines of `{id, prediction}`, all of them or none."""

import json
import os
import pathlib
from collections.abc import Sequence
from typing import Any, NoReturn

from mres_jax.data.rows.scan import Found, scan_rows
from mres_jax.data.rows.summary import Tally
from mres_jax.data.rows.types import Fault, shown
from mres_jax.errors import MresError

MAX_CHARS = 20_000  # of one prediction: a model that never stopped, or a file of something else
_KINDS = ("not JSON", "unknown form", "too long", "unknown", "duplicate", "missing")


def read_predictions(
    path: str | os.PathLike, ids: Sequence[str], *, max_chars: int = MAX_CHARS
) -> list[str]:
    """Returns the prediction for each id, in the order of `ids`.

    Args:
      path: JSON lines, or a JSON list, of objects with `id` and `prediction`; other fields are
        ignored. A number counts as it is written; no answer is "".
      ids: of the items, unique.
      max_chars: most characters of a prediction.

    Raises:
      MresError: anything missing, twice, unknown, too long or unreadable, counted by kind.
    """
    file = pathlib.Path(path)
    if not file.is_file():
        what = "is a directory" if file.is_dir() else "no such file"
        raise MresError(f"predictions {path}: {what}.")
    known, seen, tally = set(ids), set(), Tally()
    given: dict[str, str] = {}
    for number, found in enumerate(scan_rows(file)):
        name = f"line {number + 1}"
        try:
            content = _content(found)
            name = content["id"]
            if name not in known or name in seen:
                raise Fault("duplicate" if name in known else "unknown", "")
            seen.add(name)
            given[name] = _text(content["prediction"], max_chars)
        except Fault as fault:
            tally.add(fault.kind, shown(name), fault.reason)
    for name in ids:
        if name not in seen:
            tally.add("missing", shown(name))
    if findings := tally.findings(_KINDS):
        reasons = (reason for finding in findings for _, reason in finding.first if reason)
        reason = next(reasons, "")
        raise MresError(
            f"predictions {path}: {', '.join(map(str, findings))}, of {len(ids):,} items"
            f"{': ' if reason else ''}{reason}. Nothing was scored."
        )
    return [given[name] for name in ids]


def _content(found: Found) -> dict[str, Any]:
    """Fields of a line; numbers stay as they are written, since 61.10 is an answer."""
    if isinstance(found.content, Fault):
        raise found.content
    content = json.loads(found.source, parse_int=str, parse_float=str, parse_constant=_refuse)
    if not isinstance(content, dict) or "id" not in content or "prediction" not in content:
        raise Fault("unknown form", "a line is an object with id and prediction")
    if not isinstance(content["id"], str):
        raise Fault("unknown form", f"an id is {_kind(content['id'])}")
    return content


def _text(value: Any, max_chars: int) -> str:
    if not isinstance(value, str):
        raise Fault("unknown form", f"a prediction is {_kind(value)}")
    if len(value) > max_chars:
        raise Fault("too long", f"{len(value):,} characters of at most {max_chars:,}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise Fault("unknown form", "half a character, a lone surrogate") from None
    return value


def _kind(value: Any) -> str:
    names = {type(None): "null", bool: "a boolean", list: "a list", dict: "an object"}
    return names[type(value)]


def _refuse(name: str) -> NoReturn:
    raise Fault("unknown form", f"{name} is no prediction")
