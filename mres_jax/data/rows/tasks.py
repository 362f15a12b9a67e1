"""Task folders: questions with their answers, scorers and pictures, in the one row format."""

import dataclasses
import os
import pathlib

from mres_jax.data.rows.pictures import PictureFolder
from mres_jax.data.rows.question_row import QuestionRow
from mres_jax.data.rows.questions import Questioning, whole_file
from mres_jax.errors import MresError

NAMES = ("rows.jsonl", "rows.json")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """A task folder.

    Attributes:
      name: of its folder.
      rows: all of them.
    """

    name: str
    rows: tuple[QuestionRow, ...]

    @property
    def is_graded(self) -> bool:
        """Whether all answers are known."""
        return all(row.is_graded for row in self.rows)


def read_task(directory: str | os.PathLike[str], *, least: int = 1) -> Task:
    """Returns the task in a folder: `rows.jsonl` or `rows.json`, and files named from there.

    A row is `{id, images | video | frames, question, answer, type, options, scorer, tags, box}`;
    `answer` may be a list of right ones or missing, `box` is top, left, bottom, right in px. No row
    is left out: one that cannot be used refuses the task.

    Args:
      directory: the folder, or its file of rows.
      least: rows that it must have.

    Raises:
      BadRowError: the first row that cannot be used, and why.
      MresError: no rows, or fewer than `least`.
    """
    file = rows_file(pathlib.Path(directory))
    rows = whole_file(file, PictureFolder(file.parent), Questioning())
    if len(rows) < least:
        raise MresError(
            f"task {directory}: {len(rows)} row{'' if len(rows) == 1 else 's'}, but at least "
            f"{least} are needed to say how sure a choice is. Give more questions."
        )
    return Task(name=file.parent.name, rows=tuple(rows))


def rows_file(path: pathlib.Path) -> pathlib.Path:
    """Returns the file of rows that a path names: itself, or the one in a folder.

    Raises:
      MresError: there is none.
    """
    if path.is_file():
        return path.absolute()
    for name in NAMES:
        if (path / name).is_file():
            return (path / name).absolute()
    what = "has no" if path.is_dir() else "is no folder with"
    raise MresError(f"task {path}: {what} {' or '.join(NAMES)}.")
