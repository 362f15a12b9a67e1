"""Annotation files -> a file of questions, with what could not be used counted and named."""

import json
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Literal, NamedTuple

from mres_jax.data.rows.annotations.charades_sta import read_charades_sta
from mres_jax.data.rows.annotations.nextgqa import read_nextgqa
from mres_jax.data.rows.annotations.reading import NOTES, Line, Sources
from mres_jax.data.rows.annotations.video_r1 import read_video_r1
from mres_jax.data.rows.pictures import PictureFolder
from mres_jax.data.rows.summary import Finding, Tally
from mres_jax.data.rows.types import BAD_KINDS, Fault
from mres_jax.errors import BadRowError, ConfigError, MresError, suggest
from mres_jax.files import write_together

FORMATS: Mapping[str, Callable[[pathlib.Path, Sources], Iterator[Line]]] = {
    "video-r1": read_video_r1,
    "nextgqa": read_nextgqa,
    "charades-sta": read_charades_sta,
}
_KINDS = (*BAD_KINDS, "duplicate id")


class Converted(NamedTuple):
    """What became of a file.

    Attributes:
      target: the file of questions.
      rows: in it.
      by_type: how many of each type of reward.
      bad: annotations that were left out.
      notes: that were used, and are worth knowing.
    """

    target: pathlib.Path
    rows: int
    by_type: dict[str, int]
    bad: tuple[Finding, ...]
    notes: tuple[Finding, ...]


def convert_annotations(
    form: str,
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    sources: Sources | None = None,
    folder: str | os.PathLike[str] | None = None,
    on_bad: Literal["skip", "raise"] = "skip",
) -> Converted:
    """Writes the annotations of a published data set as rows for `read_questions`.

    Args:
      form: one of `FORMATS`.
      source: the file of annotations.
      target: JSON lines; one that is there is replaced.
      sources: files beside it.
      folder: of the videos and pictures; rows whose file is not there are left out. None: nobody
        looks.
      on_bad: `skip` leaves out and counts what cannot be used; `raise` refuses the file.

    Raises:
      ConfigError: an unknown form.
      BadRowError: the first annotation that cannot be used, with `on_bad="raise"`.
      MresError: no such file, another format, or nothing that can be used.
    """
    if form not in FORMATS:
        have = ", ".join(FORMATS)
        raise ConfigError(f"data convert: no format {form!r}{suggest(form, FORMATS)}; have {have}.")
    file, target = pathlib.Path(source), pathlib.Path(target)
    if not file.is_file():
        raise MresError(f"annotations {source}: no such file.")
    rows, tally = [], Tally()
    files = None if folder is None else PictureFolder(pathlib.Path(folder).absolute())
    seen: set[str] = set()
    for place, row, note in FORMATS[form](file, sources or Sources()):
        try:
            rows.append(_checked(row, files, seen))
            if note:
                tally.add(note, f"{file.name}, {place}")
        except Fault as fault:
            if on_bad == "raise":
                raise BadRowError(f"{file.name}, {place}", fault.reason, fault.kind) from None
            tally.add(fault.kind, f"{file.name}, {place}", fault.reason)
    bad = tally.findings(_KINDS)
    if not rows:
        why = f": {', '.join(map(str, bad))}: {bad[0].first[0][1]}" if bad else ""
        raise MresError(f"annotations {source}: nothing in it can be used{why}.")
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    write_together(target.parent, {target.name: lines.encode()})
    types = sorted({row["type"] for row in rows})
    counts = {kind: sum(row["type"] == kind for row in rows) for kind in types}
    return Converted(target, len(rows), counts, bad, tally.findings(NOTES))


def _checked(row: dict | Fault, files: PictureFolder | None, seen: set[str]) -> dict:
    if isinstance(row, Fault):
        raise row
    if row["id"] in seen:
        raise Fault("duplicate id", f"an earlier annotation has the id {row['id']}")
    for name in (row["video"],) if "video" in row else row["images"]:
        if files is not None and not files.has(name):
            kind = "missing video" if "video" in row else "missing picture"
            raise Fault(kind, f"{name}: no such file")
    seen.add(row["id"])
    return row
