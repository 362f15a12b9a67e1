"""Charades-STA: when does what a sentence says happen in a video?

Reference:
  Gao et al., 2017, "TALL: Temporal Activity Localization via Language Query", arXiv:1705.02101;
  videos of Charades (Sigurdsson et al., 2016, arXiv:1604.01753), scaled to 480p.
"""

import ast
import functools
import os
import pathlib
import re
from collections.abc import Sequence
from typing import Any

from mres_jax.data.rows import QuestionRow
from mres_jax.data.rows.types import shown
from mres_jax.data.video.finding import find_video
from mres_jax.errors import BadRowError, MresError
from mres_jax.evaluation.benchmarks.shares import field, read_rows
from mres_jax.evaluation.benchmarks.tables import parquet_files, read_parquet
from mres_jax.protocols import Answer
from mres_jax.rewards import Grounding, Span, best_span_iou, grounding, parse_span

SENTENCES = "charades_sta_test.txt"
COLUMNS = ("video", "caption", "timestamp")
FOLDERS = ("Charades_v1_480", "Charades_v1", "videos", "")
_LINE = re.compile(r"(\S+) +(\d+(?:\.\d+)?) +(\d+(?:\.\d+)?)##(.+)")


def load_charades_sta(path: str | os.PathLike[str]) -> list[QuestionRow]:
    """Returns the rows of the test split, the video's name as their tag.

    Args:
      path: folder with `charades_sta_test.txt`, or the table as parquet, and the videos in
        `Charades_v1_480/` (or beside it): files or folders of frames.

    Raises:
      MresError: no sentences; rows that say no span of time or whose video is not there, counted.
    """
    root = pathlib.Path(path)
    if files := parquet_files(root, name="charades_sta"):
        home = root if root.is_dir() else root.parent
        contents = read_parquet(files, COLUMNS, name="charades_sta")
        return read_rows("charades_sta", path, contents, functools.partial(_of_table, home))
    lines = filter(str.strip, _lines(root))
    return read_rows("charades_sta", path, lines, functools.partial(_of_line, root))


def _lines(root: pathlib.Path) -> list[str]:
    try:
        return (root / SENTENCES).read_text("utf-8").split("\n")
    except OSError:
        raise MresError(f"charades_sta {root}: no {SENTENCES} and no parquet.") from None


def _of_line(root: pathlib.Path, row: str, line: str) -> QuestionRow:
    found = _LINE.fullmatch(line.strip())
    if found is None:
        reason = f"{shown(repr(line.strip()), 60)} is not VIDEO START END##SENTENCE"
        raise BadRowError(row, reason, "unknown form")
    video, start, end, sentence = found.groups()
    return _row(row, root, video, (float(start), float(end)), sentence)


def _of_table(home: pathlib.Path, row: str, content: Any) -> QuestionRow:
    video = pathlib.PurePath(field(content, "video", str, row)).stem
    times = _times(content["timestamp"], row)
    return _row(row, home, video, times, field(content, "caption", str, row))


def _times(value: Any, row: str) -> Sequence[float]:
    try:
        times = ast.literal_eval(value) if isinstance(value, str) else value
        start, end = (float(time) for time in times)
    except (SyntaxError, TypeError, ValueError):
        reason = f"timestamp is {shown(repr(value))}, not start and end"
        raise BadRowError(row, reason, "no answer") from None
    return start, end


def _row(
    row: str, root: pathlib.Path, video: str, times: Sequence[float], sentence: str
) -> QuestionRow:
    start, end = times
    if not 0 <= start < end:
        raise BadRowError(row, f"it lasts from {start} s to {end} s", "no answer")
    return QuestionRow(
        id=row,
        pictures=(),
        question=sentence.strip().rstrip("."),
        answers=(f"{start} - {end}",),
        scorer="span_iou",
        tags=(video,),
        clips=(find_video(root, FOLDERS, video, row),),
    )


def score_charades_sta(rows: Sequence[QuestionRow], answers: Sequence[Answer]) -> Grounding:
    """Returns recall at an overlap of 0.3, 0.5 and 0.7, and the mean overlap."""
    overlaps = [
        best_span_iou(answer.text, _spans(row)) for row, answer in zip(rows, answers, strict=True)
    ]
    return grounding(overlaps)


def _spans(row: QuestionRow) -> list[Span]:
    return [span for answer in row.answers if (span := parse_span(answer))]
