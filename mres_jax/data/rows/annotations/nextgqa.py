"""NExT-GQA: questions with five options, and where in the video the answer is seen.

Reference:
  Xiao et al., 2024, "Can I Trust Your Answer? Visually Grounded Video Question Answering",
  arXiv:2309.01327; files as in doc-doc/NExT-GQA, `datasets/nextgqa` (commit 8331fcc): the columns
  of `val.csv`, `gsub_val.json` with `location` by `qid`, `map_vid_vidorID.json`.
"""

import csv
import json
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from mres_jax.data.rows.annotations.reading import (
    NOTES,
    SECONDS,
    Line,
    Sources,
    letter,
    span,
    text,
)
from mres_jax.data.rows.types import Fault, shown
from mres_jax.errors import MresError

OPTIONS = ("a0", "a1", "a2", "a3", "a4")
_GROUNDED = "the letter of an option, then <>, then when it is seen, as"
COLUMNS = ("video_id", "question", "answer", "qid", "type", *OPTIONS)


def read_nextgqa(file: pathlib.Path, sources: Sources) -> Iterator[Line]:
    """Yields the rows of `train.csv`, `val.csv` or `test.csv`.

    With `sources.spans` they are of type `grounded`, `B <> [start, end]`, else of type `choice`.

    Raises:
      MresError: columns are missing, or a file beside it cannot be read.
    """
    spans = None if sources.spans is None else _object(sources.spans)
    videos = None if sources.videos is None else _object(sources.videos)
    with file.open(encoding="utf-8-sig", newline="") as stream:
        table = csv.DictReader(stream, strict=True)
        try:
            if missing := [name for name in COLUMNS if name not in (table.fieldnames or ())]:
                raise MresError(
                    f"annotations {file}: no column {', '.join(missing)}; give a .csv of NExT-GQA."
                )
            for content in table:
                place = f"line {table.line_num}"
                try:
                    row, is_early = _row(content, spans, videos, sources.suffix)
                    yield Line(place, row, NOTES[0] if is_early else "")
                except Fault as fault:
                    yield Line(place, fault)
        except (csv.Error, UnicodeDecodeError) as error:
            reason = f"line {table.line_num + 1}: no CSV ({shown(error)})"
            raise MresError(f"annotations {file}: {reason}.") from None


def _row(
    content: Mapping[str, Any],
    spans: Mapping[str, Any] | None,
    videos: Mapping[str, Any] | None,
    suffix: str,
) -> tuple[dict[str, Any], bool]:
    """A row, and whether one of its spans begins before the video."""
    if None in content or None in content.values():
        raise Fault("unknown form", "it has another number of fields than the first line")
    video, qid = text(content, "video_id"), text(content, "qid")
    options = [text(content, name) for name in OPTIONS]
    answer, question = letter(options, text(content, "answer")), text(content, "question")
    is_early = False
    if spans is not None:
        found = _spans(spans, video, qid)
        named = [span(*each) for each in found]
        answer = f"{answer} <> {'; '.join(named)}"
        is_early = any(float(start) < 0 for start, _ in found)
        question = f"{question}\nAnswer with {_GROUNDED} {SECONDS}."
    row = {
        "id": f"{video}-{qid}",
        "video": _place(videos, video) + suffix,
        "question": question,
        "answer": answer,
        "type": "choice" if spans is None else "grounded",
        "options": options,
        "tags": [text(content, "type")],
    }
    return row, is_early


def _spans(spans: Mapping[str, Any], video: str, qid: str) -> list[list[Any]]:
    known = spans.get(video)
    located = known.get("location") if isinstance(known, Mapping) else None
    found = located.get(qid) if isinstance(located, Mapping) else None
    if not isinstance(found, list) or not found:
        raise Fault("no answer", f"no span of question {qid} about video {video}")
    if not all(isinstance(each, list) and len(each) == 2 for each in found):
        raise Fault("no answer", f"the spans {shown(found)} are not start and end")
    return found


def _place(videos: Mapping[str, Any] | None, video: str) -> str:
    if videos is None:
        return video
    if not isinstance(videos.get(video), str):
        raise Fault("missing video", f"no place of video {video}")
    return videos[video]


def _object(file: pathlib.Path) -> Mapping[str, Any]:
    try:
        content = json.loads(file.read_bytes())
    except OSError as error:
        raise MresError(f"annotations {file}: {(error.strerror or '').lower()}.") from None
    except (ValueError, RecursionError) as error:
        raise MresError(f"annotations {file}: no JSON ({shown(error)}).") from None
    if not isinstance(content, dict):
        raise MresError(f"annotations {file}: is no object of videos.")
    return content
