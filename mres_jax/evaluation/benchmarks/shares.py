"""Shares of right answers over groups, and what the loaders have in common."""

import json
import os
import pathlib
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from mres_jax.data.rows import QuestionRow
from mres_jax.data.rows.summary import Tally
from mres_jax.data.rows.types import BAD_KINDS, shown
from mres_jax.errors import BadRowError, MresError
from mres_jax.geometry import View
from mres_jax.protocols import Answer
from mres_jax.scoring import Interval, wilson_interval

C = TypeVar("C")
Row = TypeVar("Row")


def shares(
    rows: Sequence[QuestionRow], right: Sequence[float], group: Callable[[QuestionRow], Hashable]
) -> dict[str, Interval]:
    """Returns the share right of each group, with 95 % Wilson intervals."""
    members: dict[Hashable, list[float]] = {}
    for row, score in zip(rows, right, strict=True):
        members.setdefault(group(row), []).append(score)
    return {
        str(name): wilson_interval(sum(scores), len(scores)) for name, scores in members.items()
    }


METRICS_OF_ONE_VIEW = frozenset({"element", "point", "box"})  # those that call `only_view`


def only_view(row: QuestionRow, answer: Answer, *, metric: str) -> View:
    """Returns the view that the places of an answer are meant in.

    Raises:
      MresError: the model looked at no view, or at several.
    """
    if len(answer.views) != 1:
        raise MresError(
            f"question {row.id!r}: metric {metric} needs the one view that places are meant in, "
            f"but the model looked at {len(answer.views)}. Leave out policies of several views."
        )
    return answer.views[0]


def window_recall(rows: Sequence[QuestionRow], answers: Sequence[Answer]) -> Interval:
    """Returns how often a view of the last pass holds all of the box: a bound of any zoom.

    Rows without a box do not count.

    Raises:
      MresError: no row has a box.
    """
    held = [
        any(view.crop.holds(row.box) for view in answer.views)
        for row, answer in zip(rows, answers, strict=True)
        if row.box is not None
    ]
    if not held:
        raise MresError("window recall: no row says where its answer stands.")
    return wilson_interval(sum(held), len(held))


def read_json_file(path: pathlib.Path, *, lines: bool = False) -> Any:
    """Returns what a file of a benchmark holds, or of JSON lines the list of them.

    Raises:
      MresError: it is not there, or no JSON.
    """
    try:
        text = path.read_text("utf-8")
        if lines:
            return [json.loads(line) for line in text.split("\n") if line.strip()]
        return json.loads(text)
    except OSError as error:
        raise MresError(f"{path}: {(error.strerror or 'cannot be read').lower()}.") from None
    except ValueError as error:
        raise MresError(f"{path}: no JSON ({error}).") from None


def read_list(name: str, file: pathlib.Path, *, under: str = "") -> list[Any]:
    """Returns the list of rows that a file of a benchmark is, or holds under a name.

    Raises:
      MresError: there is no such file, or no such list.
    """
    rows = read_json_file(file)
    if under:
        rows = rows.get(under) if isinstance(rows, Mapping) else None
    if not isinstance(rows, list):
        raise MresError(f"{name} {file}: {f'has no list {under!r}' if under else 'is no list'}.")
    return rows


def read_rows(
    name: str, path: str | os.PathLike[str], contents: Iterable[C], read: Callable[[str, C], Row]
) -> list[Row]:
    """Returns all rows of a copy, or counts what is wrong with them.

    Args:
      name: of the benchmark.
      path: of the copy.
      contents: of its rows.
      read: makes a row of what it is called where it has no id, `#17`, and its contents; raises
        `BadRowError`.

    Raises:
      MresError: rows that cannot be asked, counted by kind, with the first ones and its reason; no
        row at all.
    """
    rows, tally, first, count = [], Tally(), "", 0
    for count, content in enumerate(contents, start=1):
        try:
            rows.append(read(f"#{count - 1}", content))
        except BadRowError as error:
            tally.add(error.kind, shown(error.row), error.reason)
            first = first or shown(error, 300)
    if findings := tally.findings(BAD_KINDS):
        raise MresError(
            f"{name} {path}: {', '.join(map(str, findings))}, of {count:,} rows: {first}"
        )
    if not rows:
        raise MresError(f"{name} {path}: has no rows.")
    return rows


def id_of(content: Any, name: str, where: str) -> str:
    """Returns what a row is called: a field of it, or where it stands if it has none."""
    value = content.get(name) if isinstance(content, Mapping) else None
    return where if value is None else str(value)


def field(content: Any, name: str, kind: type, row: str) -> Any:
    """Returns a field of a row.

    Raises:
      BadRowError: it is missing or of another type.
    """
    value = content.get(name) if isinstance(content, Mapping) else None
    if not isinstance(value, kind) or (isinstance(value, str) and not value.strip()):
        reason = f"{name} is {shown(repr(value))}, not a {kind.__name__}"
        raise BadRowError(row, reason, "unknown form")
    return value
