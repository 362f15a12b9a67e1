"""Files of questions -> rows: for tasks, for evaluation, and for learning from rewards.

A row is `{id, images | video | frames, question, answer, type, options, scorer, tags, box}`:
`images` picture files, `video` a file or a folder of frames, `frames` the picture files of one clip
in order. Who asks says with `Questioning` which of these it takes.
"""

import dataclasses
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mres_jax.data.rows.forms import row_id
from mres_jax.data.rows.named import image_names
from mres_jax.data.rows.pictures import PictureFolder
from mres_jax.data.rows.question_row import ClipFiles, QuestionRow
from mres_jax.data.rows.scan import scan_rows
from mres_jax.data.rows.types import Fault, as_text, shown
from mres_jax.errors import BadRowError, MresError
from mres_jax.geometry import Box
from mres_jax.scoring import SCORERS

FORMS = ("video", "frames", "images")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Questioning:
    """What rows somebody who asks them takes.

    Attributes:
      noun: what messages call a row.
      scorers: that a row may name, in `scorer` or `metric`.
      scorer: of rows that name none; None: `choice` with options, else `exact`.
      learns: from rewards: a row is about one clip or about pictures, `frames` are one clip, and
        there is one answer, whose kind is `choice` with options, else `text`, if nobody says.
    """

    noun: str = "row of a task"
    scorers: Sequence[str] = SCORERS
    scorer: str | None = None
    learns: bool = False


LEARNING = Questioning(noun="row", learns=True)


def read_questions(
    path: str | os.PathLike[str], *, folder: str | os.PathLike[str] | None = None
) -> list[QuestionRow]:
    """Returns the rows of a file that rewards are learned from.

    None is left out, one that cannot be used refuses the file.

    Args:
      path: a JSON list of rows, or JSON lines.
      folder: that names of files start from; the file's own when None.

    Raises:
      BadRowError: the first row that cannot be used, and why.
      MresError: no such file, or no rows in it.
    """
    file = pathlib.Path(path).absolute()
    if not file.is_file():
        raise MresError(f"questions {path}: no such file.")
    rows = whole_file(file, PictureFolder(pathlib.Path(folder or file.parent)), LEARNING)
    if not rows:
        raise MresError(f"questions {path}: no rows.")
    return rows


def whole_file(file: pathlib.Path, folder: PictureFolder, asked: Questioning) -> list[QuestionRow]:
    """Returns all rows of a file; raises `BadRowError` for the first that cannot be used."""
    rows = []
    for name, row in scan_questions(file, folder, asked):
        if isinstance(row, Fault):
            raise BadRowError(name, f"{row.reason} ({file})", row.kind)
        rows.append(row)
    return rows


def scan_questions(
    file: pathlib.Path, folder: PictureFolder, asked: Questioning | None = None
) -> Iterator[tuple[str, QuestionRow | Fault]]:
    """Yields every row of a file with its id, and those that cannot be used with the reason.

    Args:
      file: of rows.
      folder: of pictures and clips.
      asked: which rows are taken; those of a task when None.
    """
    asked, seen = asked or Questioning(), set()
    for number, found in enumerate(scan_rows(file)):
        name = row_id(found.content, number)
        try:
            row = _parse(found.content, name, folder, asked)
            if name in seen:
                raise Fault("duplicate id", "an earlier row has the same id")
        except Fault as fault:
            yield name, fault
        else:
            yield name, row
        seen.add(name)


def _parse(content: Any, name: str, folder: PictureFolder, asked: Questioning) -> QuestionRow:
    if isinstance(content, Fault):
        raise content
    if not isinstance(content, Mapping) or not as_text(content.get("question")).strip():
        raise Fault("unknown form", f"a {asked.noun} is an object with a question")
    options = _options(content)
    pictures, clips = (_item if asked.learns else _items)(content, folder)
    kind = as_text(content.get("type"))
    fields: dict[str, Any] = {
        "id": name,
        "pictures": pictures,
        "clips": clips,
        "question": as_text(content["question"]),
        "options": options,
    }
    if asked.learns:
        answers = (_learned_answer(content),)
        return QuestionRow(
            **fields, answers=answers, type=kind or ("choice" if options else "text")
        )
    row = QuestionRow(
        **fields,
        answers=_texts(_first_of(content, "answer", "answers"), "answer"),
        type=kind,
        scorer=as_text(_first_of(content, "scorer", "metric"))
        or (asked.scorer or ("choice" if options else "exact")),
        tags=_texts(content.get("tags"), "tags"),
        box=_box(content.get("box")),
        text_height=_height(content.get("text_height")),
    )
    _check_scorer(row, asked)
    return row


def _check_scorer(row: QuestionRow, asked: Questioning) -> None:
    if row.scorer not in asked.scorers:
        have = ", ".join(asked.scorers)
        raise Fault("unknown form", f"scorer {shown(row.scorer)!r}; have {have}")
    if row.scorer in ("point", "box") and row.box is None:
        raise Fault("no answer", f"scorer {row.scorer} needs the box of the answer")
    if row.scorer == "choice" and len(row.options) < 2:
        raise Fault("unknown form", "scorer choice needs at least two options")


def _learned_answer(content: Mapping[str, Any]) -> str:
    answer = as_text(content.get("answer"))
    if not answer.strip():
        raise Fault("no answer", "nobody knows what is right, so nothing can be earned")
    return answer


def _item(
    content: Mapping[str, Any], folder: PictureFolder
) -> tuple[tuple[str, ...], tuple[ClipFiles, ...]]:
    """The pictures of a row, or its one clip."""
    given = [name for name in (*FORMS, "image") if content.get(name)]
    if len(given) != 1:
        raise Fault("unknown form", f"one of {', '.join(FORMS)} is needed, got {given or 'none'}")
    if given[0] == "video":
        path = folder.path(as_text(content["video"]))
        if not os.path.exists(path):
            raise Fault("missing video", f"no video {shown(path, 300)}")
        return (), (path,)
    if given[0] == "frames":
        return (), (_frames(content, folder),)
    return _located(content, folder), ()


def _items(
    content: Mapping[str, Any], folder: PictureFolder
) -> tuple[tuple[str, ...], tuple[ClipFiles, ...]]:
    """All pictures and clips of a row."""
    pictures = _located(content, folder)
    names = _first_of(content, "video", "videos", "frames") or []
    if content.get("frames"):
        return pictures, (_frames(content, folder),)
    names = [names] if isinstance(names, str) else names
    if not isinstance(names, Sequence) or not all(isinstance(name, str) for name in names):
        raise Fault("unknown form", "clips are names of files or of folders of frames")
    return pictures, tuple(_existing(as_text(name), folder) for name in names)


def _frames(content: Mapping[str, Any], folder: PictureFolder) -> tuple[str, ...]:
    """The files of one clip's frames, in order."""
    return _located({"images": content["frames"]}, folder)


def _located(content: Mapping[str, Any], folder: PictureFolder) -> tuple[str, ...]:
    return tuple(folder.located(picture) for picture in image_names(content))


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


def _options(content: Mapping[str, Any]) -> tuple[str, ...]:
    options = content.get("options") or []
    if not isinstance(options, list):
        raise Fault("unknown form", "options is not a list of texts")
    return tuple(as_text(option) for option in options)


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
