"""Task folders: questions with their answers, scorers and pictures, in the one row format."""

import dataclasses
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from mres_jax.data.images import decode_image, read_size
from mres_jax.data.rows.forms import row_id, with_options
from mres_jax.data.rows.named import image_names
from mres_jax.data.rows.pictures import PictureFolder
from mres_jax.data.rows.scan import scan_rows
from mres_jax.data.rows.types import Fault, as_text, shown
from mres_jax.errors import BadImageError, BadRowError, MresError
from mres_jax.geometry import Box, Size
from mres_jax.scoring import SCORERS, grade

NAMES = ("rows.jsonl", "rows.json")
Picture = str | bytes  # a path, or a file's contents


@dataclasses.dataclass(frozen=True, kw_only=True)
class TaskRow:
    """One question of a task.

    Attributes:
      id: of the task; `#17` where row 17, from 0, has none.
      pictures: files, in reading order.
      question: without its options.
      answers: those that are right; none where nobody knows.
      type: what the task counts it under.
      options: of a multiple choice; the letters A, B, ... name them.
      scorer: of `mres_jax.scoring.grade`.
      tags: whatever else it is counted under.
      box: where the answer stands, px of the first picture; None where it has no place.
      text_height: of the capitals to be read, px of the picture; 0 where nobody says.
      clips: video files and folders of frames; they stand behind the pictures.
    """

    id: str
    pictures: tuple[Picture, ...]
    question: str
    answers: tuple[str, ...] = ()
    type: str = ""
    options: tuple[str, ...] = ()
    scorer: str = "exact"
    tags: tuple[str, ...] = ()
    box: Box | None = None
    text_height: float = 0.0
    clips: tuple[str, ...] = ()

    @property
    def prompt(self) -> str:
        """The question with its options."""
        return with_options(self.question, self.options) if self.options else self.question

    @property
    def is_graded(self) -> bool:
        """Whether it is known what is right."""
        return bool(self.answers) or (self.scorer in ("point", "box") and self.box is not None)

    def images(self) -> list[np.ndarray]:
        """Returns its pictures, `uint8 [h w 3]`.

        Raises:
          BadRowError: a picture that cannot be decoded.
        """
        try:
            return [decode_image(picture) for picture in self.pictures]
        except BadImageError as error:
            raise BadRowError(self.id, str(error)) from None

    def sizes(self) -> list[Size]:
        """Returns the upright sizes of its pictures, px, from their headers; raises as `images`."""
        try:
            return [read_size(picture) for picture in self.pictures]
        except BadImageError as error:
            raise BadRowError(self.id, str(error)) from None

    def grade(self, answer: Any) -> float:
        """Returns 1.0 where an `Answer` is right, else 0.0."""
        return grade(
            self.scorer,
            answer.text,
            self.answers,
            options=self.options,
            box=self.box,
            views=answer.views,
            coord_frame=answer.coord_frame,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """A task folder.

    Attributes:
      name: of its folder.
      rows: all of them.
    """

    name: str
    rows: tuple[TaskRow, ...]

    @property
    def is_graded(self) -> bool:
        """Whether all answers are known."""
        return all(row.is_graded for row in self.rows)


def read_task(directory: str | os.PathLike[str], *, least: int = 1) -> Task:
    """Returns the task in a folder: `rows.jsonl` or `rows.json`, and pictures named from there.

    A row is `{id, images, question, answer, type, options, scorer, tags, box}`; `answer` may be a
    list of right ones or missing, `box` is top, left, bottom, right in px. No row is left out: one
    that cannot be used refuses the task.

    Args:
      directory: the folder, or its file of rows.
      least: rows that it must have.

    Raises:
      BadRowError: the first row that cannot be used, and why.
      MresError: no rows, or fewer than `least`.
    """
    file = rows_file(pathlib.Path(directory))
    rows = []
    for name, row in scan_task(file, PictureFolder(file.parent)):
        if isinstance(row, Fault):
            raise BadRowError(name, f"{row.reason} ({file})", row.kind)
        rows.append(row)
    if len(rows) < least:
        raise MresError(
            f"task {directory}: {len(rows)} row{'' if len(rows) == 1 else 's'}, but at least "
            f"{least} are needed to say how sure a choice is. Give more questions."
        )
    return Task(name=file.parent.name, rows=tuple(rows))


def scan_task(
    file: pathlib.Path,
    folder: PictureFolder,
    *,
    scorers: Sequence[str] = SCORERS,
    scorer: str | None = None,
    clips: bool = False,
) -> Iterator[tuple[str, TaskRow | Fault]]:
    """Yields every row of a file with its id, and those that cannot be used with the reason.

    Args:
      file: of rows.
      folder: of pictures.
      scorers: that a row may name, in `scorer` or `metric`.
      scorer: of rows that name none; None: `choice` with options, else `exact`.
      clips: whether rows may have `video`.
    """
    seen = set()
    for number, found in enumerate(scan_rows(file)):
        name = row_id(found.content, number)
        try:
            row = _parse(found.content, name, folder, scorers, scorer)
            if row.clips and not clips:
                raise Fault("unknown form", "a task of pictures takes no clips")
            if name in seen:
                raise Fault("duplicate id", "an earlier row has the same id")
        except Fault as fault:
            yield name, fault
        else:
            yield name, row
        seen.add(name)


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


def _parse(
    content: Any, name: str, folder: PictureFolder, scorers: Sequence[str], scorer: str | None
) -> TaskRow:
    if isinstance(content, Fault):
        raise content
    if not isinstance(content, Mapping) or not as_text(content.get("question")).strip():
        raise Fault("unknown form", "a row of a task is an object with a question")
    options = _texts(content.get("options"), "options")
    row = TaskRow(
        id=name,
        pictures=tuple(folder.located(picture) for picture in image_names(content)),
        question=as_text(content["question"]),
        answers=_texts(_first_of(content, "answer", "answers"), "answer"),
        type=as_text(content.get("type")),
        options=options,
        scorer=as_text(_first_of(content, "scorer", "metric"))
        or (scorer or ("choice" if options else "exact")),
        tags=_texts(content.get("tags"), "tags"),
        box=_box(content.get("box")),
        text_height=_height(content.get("text_height")),
        clips=tuple(_existing(clip, folder) for clip in _clip_names(content)),
    )
    if row.scorer not in scorers:
        raise Fault("unknown form", f"scorer {shown(row.scorer)!r}; have {', '.join(scorers)}")
    if row.scorer in ("point", "box") and row.box is None:
        raise Fault("no answer", f"scorer {row.scorer} needs the box of the answer")
    if row.scorer == "choice" and len(row.options) < 2:
        raise Fault("unknown form", "scorer choice needs at least two options")
    return row


def _clip_names(content: Mapping[str, Any]) -> list[str]:
    if content.get("frames"):
        raise Fault("unknown form", "frames stand in a folder; give the folder as video")
    names = _first_of(content, "video", "videos") or []
    names = [names] if isinstance(names, str) else names
    if not isinstance(names, Sequence) or not all(isinstance(name, str) for name in names):
        raise Fault("unknown form", "clips are names of files or of folders of frames")
    return [as_text(name) for name in names]


def _existing(name: str, folder: PictureFolder) -> str:
    path = folder.path(name)
    if not os.path.exists(path):
        raise Fault("missing video", f"clip {shown(name, 300)}: no such file or folder")
    return path


def _first_of(content: Mapping[str, Any], *names: str) -> Any:
    """The field that is there; raises `Fault` where two are, since one would be ignored."""
    given = [name for name in names if content.get(name) is not None]
    if len(given) > 1:
        raise Fault("unknown form", f"it has both {given[0]} and {given[1]}")
    return content[given[0]] if given else None


def _height(value: Any) -> float:
    ok = value is None or (type(value) in (int, float) and 0 <= value < 1e5)
    if not ok:
        raise Fault("unknown form", f"text_height {shown(value)} is no height in px")
    return float(value or 0)


def _texts(value: Any, what: str) -> tuple[str, ...]:
    if value is None:
        return ()
    if isinstance(value, Sequence) and not isinstance(value, str):
        return tuple(as_text(each) for each in value)
    if isinstance(value, Mapping):
        raise Fault("unknown form", f"{what} is an object, not a text or a list of texts")
    return (as_text(value),)


def _box(value: Any) -> Box | None:
    if value is None:
        return None
    is_box = isinstance(value, list) and len(value) == 4 and all(type(v) is int for v in value)
    if not is_box or not (0 <= value[0] < value[2] and 0 <= value[1] < value[3]):
        raise Fault("unknown form", f"box {shown(value)} is not top, left, bottom, right in px")
    return Box(*value)
