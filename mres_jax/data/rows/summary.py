"""What a data set holds and what is wrong with it, counted by kind."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from mres_jax.data.rows.types import BAD_KINDS, NOTE_KINDS

NAMED = 20  # rows of a kind that are kept by name
IN_LINE = 3  # of them in a line


@dataclasses.dataclass(frozen=True, kw_only=True)
class Finding:
    """Rows of one kind.

    Attributes:
      kind: of `BAD_KINDS` or `NOTE_KINDS`.
      count: rows.
      first: `(id, reason)` of the first of them.
    """

    kind: str
    count: int
    first: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        return f"{self.count:,} {self.kind} (first: {self.names})"

    @property
    def names(self) -> str:
        """The first few rows."""
        return ", ".join(row for row, _ in self.first[:IN_LINE])

    def to_dict(self) -> dict[str, Any]:
        """Returns it as plain values, for JSON."""
        first = [{"id": row, "reason": reason} for row, reason in self.first]
        return {"kind": self.kind, "count": self.count, "first": first}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "Finding":
        """Reads what `to_dict` gave."""
        first = tuple((each["id"], each["reason"]) for each in content["first"])
        return cls(kind=content["kind"], count=content["count"], first=first)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Summary:
    """Counts of a data set.

    Attributes:
      name: of its file.
      num_rows: bad ones included.
      num_text_only: usable rows without a picture or clip.
      num_pictures: of usable rows; one that several rows show counts each time.
      num_clips: the same.
      bad: what was left out.
      notes: what was used, and is worth knowing.
    """

    name: str
    num_rows: int
    num_text_only: int
    num_pictures: int
    num_clips: int
    bad: tuple[Finding, ...]
    notes: tuple[Finding, ...]

    @property
    def num_bad(self) -> int:
        """Rows that cannot be used."""
        return sum(finding.count for finding in self.bad)

    def __str__(self) -> str:
        line = f"{self.name}: {self.num_rows:,} rows, {self.num_text_only:,} text only, "
        line += f"{self.num_clips:,} clips, " if self.num_clips else ""
        line += f"{self.num_bad:,} bad"
        if self.bad:
            line += f": {', '.join(map(str, self.bad))}"
        return line + (f"; noted: {', '.join(map(str, self.notes))}" if self.notes else "")

    def to_dict(self) -> dict[str, Any]:
        """Returns it as plain values, for JSON."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        for name in ("bad", "notes"):
            fields[name] = [finding.to_dict() for finding in fields[name]]
        return fields | {"num_bad": self.num_bad}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "Summary":
        """Reads what `to_dict` gave."""
        fields = {field.name: content[field.name] for field in dataclasses.fields(cls)}
        for name in ("bad", "notes"):
            fields[name] = tuple(Finding.from_dict(each) for each in fields[name])
        return cls(**fields)


class Tally:
    """Counts rows by kind while they go by."""

    def __init__(self):
        self._counts: dict[str, int] = {}
        self._first: dict[str, list[tuple[str, str]]] = {}

    def add(self, kind: str, row: str, reason: str = "") -> None:
        """Counts one row."""
        self._counts[kind] = self._counts.get(kind, 0) + 1
        first = self._first.setdefault(kind, [])
        if len(first) < NAMED:
            first.append((row, reason))

    def findings(self, kinds: Sequence[str]) -> tuple[Finding, ...]:
        """What was counted, of these kinds and in their order."""
        return tuple(
            Finding(kind=kind, count=self._counts[kind], first=tuple(self._first[kind]))
            for kind in kinds
            if kind in self._counts
        )

    def summary(self, name: str, **counts: int) -> Summary:
        """Returns the whole count; `counts` are those of `Summary`."""
        return Summary(
            name=name,
            **counts,
            bad=self.findings(BAD_KINDS),
            notes=self.findings(NOTE_KINDS),
        )
