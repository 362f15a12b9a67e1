"""Video-MME: multiple choice about videos of 11 seconds to an hour, without their subtitles.

Reference:
  Fu et al., 2024, "Video-MME", arXiv:2405.21075; data of lmms-lab/Video-MME.
"""

import functools
import os
import pathlib
import re
from typing import Any

from mres_jax.data.rows import QuestionRow
from mres_jax.data.video.finding import find_video
from mres_jax.errors import BadRowError, MresError
from mres_jax.evaluation.benchmarks.shares import field, id_of, read_rows
from mres_jax.evaluation.benchmarks.tables import parquet_files, read_parquet, texts

COLUMNS = (
    *("question_id", "videoID", "duration", "domain", "sub_category", "task_type"),
    *("question", "options", "answer"),
)
DURATIONS = ("short", "medium", "long")
LETTERS = "ABCD"
_LETTERED = re.compile(r"^\s*\(?[A-D][).:]\s*")


def load_videomme(path: str | os.PathLike[str]) -> list[QuestionRow]:
    """Returns the rows; `type` is how long the video is, tags domain, sub-domain, task and video.

    Args:
      path: folder with the table as parquet, and the videos in `data/` (or beside it): files or
        folders of frames, named by `videoID`.

    Raises:
      MresError: no table; rows without a field, their four options or their video, counted.
    """
    root = pathlib.Path(path)
    files = parquet_files(root, name="videomme")
    if not files:
        raise MresError(f"videomme {path}: no parquet is there.")
    home = root if root.is_dir() else root.parent
    contents = read_parquet(files, COLUMNS, name="videomme")
    return read_rows("videomme", path, contents, functools.partial(_row, home))


def _row(home: pathlib.Path, where: str, content: Any) -> QuestionRow:
    row = id_of(content, "question_id", where)
    options = texts(content["options"], "options", row, least=len(LETTERS))
    answer, length = (field(content, name, str, row) for name in ("answer", "duration"))
    if len(answer) != 1 or answer not in LETTERS or length not in DURATIONS:
        raise BadRowError(row, f"answer {answer!r} (A to D), duration {length!r}", "no answer")
    video = field(content, "videoID", str, row)
    kinds = (field(content, name, str, row) for name in ("domain", "sub_category", "task_type"))
    return QuestionRow(
        id=row,
        pictures=(),
        question=field(content, "question", str, row),
        answers=(answer,),
        type=length,
        options=tuple(_LETTERED.sub("", option) for option in options),
        scorer="choice",
        tags=(*kinds, video),
        clips=(find_video(home, ("data", "videos", ""), video, row),),
    )
