"""Questions about clips and pictures, for learning from rewards and for evaluation.

A row is `{id, video | frames | images, question, answer, type, options}`: `video` a file or a
folder of frames, `frames` the picture files of one clip in order, `images` pictures that are none.
"""

import dataclasses
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from mres_jax.data.images import decode_image
from mres_jax.data.rows.forms import row_id, with_options
from mres_jax.data.rows.named import image_names
from mres_jax.data.rows.pictures import PictureFolder
from mres_jax.data.rows.scan import scan_rows
from mres_jax.data.rows.types import Fault, as_text, shown
from mres_jax.data.video import FrameSampling, clip_of, open_clip
from mres_jax.errors import BadImageError, BadRowError, BadVideoError, MresError
from mres_jax.protocols import Item

FORMS = ("video", "frames", "images")


@dataclasses.dataclass(frozen=True, kw_only=True)
class QuestionRow:
    """One question with what it is about.

    Attributes:
      id: of the file; `#17` where row 17, from 0, has none.
      form: `video`, `frames` or `images`.
      files: of it; one for a `video`.
      question: without its options.
      answer: the right one; several of one question are separated as `rewards.reward` says.
      type: what its reward goes by, see `rewards.reward`.
      options: of a multiple choice.
    """

    id: str
    form: str
    files: tuple[str, ...]
    question: str
    answer: str
    type: str
    options: tuple[str, ...] = ()

    @property
    def prompt(self) -> str:
        """The question with its options."""
        return with_options(self.question, self.options) if self.options else self.question

    def items(self, sampling: FrameSampling) -> list[Item]:
        """Returns its pictures, or its clip alone; a clip of one frame is a picture.

        Args:
          sampling: which frames of a clip.

        Raises:
          BadRowError: a file that cannot be read.
        """
        try:
            if self.form == "video":
                return [open_clip(self.files[0], sampling, fps=sampling.fps)]
            pictures = [decode_image(file) for file in self.files]
            if self.form == "images" or len(pictures) == 1:
                return list(pictures)
            limit = sampling.max_frames
            return [clip_of(pictures, fps=sampling.fps, max_frames=limit, name=self.id)]
        except (BadImageError, BadVideoError) as error:
            raise BadRowError(self.id, str(error)) from None


def read_questions(
    path: str | os.PathLike[str], *, folder: str | os.PathLike[str] | None = None
) -> list[QuestionRow]:
    """Returns the rows of a file; none is left out, one that cannot be used refuses the file.

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
    place, rows, seen = PictureFolder(pathlib.Path(folder or file.parent)), [], set()
    for number, found in enumerate(scan_rows(file)):
        name = row_id(found.content, number)
        try:
            if name in seen:
                raise Fault("duplicate id", "an earlier row has the same id")
            rows.append(_parse(found.content, name, place))
        except Fault as fault:
            raise BadRowError(name, f"{fault.reason} ({file})", fault.kind) from None
        seen.add(name)
    if not rows:
        raise MresError(f"questions {path}: no rows.")
    return rows


def _parse(content: Any, name: str, folder: PictureFolder) -> QuestionRow:
    if isinstance(content, Fault):
        raise content
    if not isinstance(content, Mapping) or not as_text(content.get("question")).strip():
        raise Fault("unknown form", "a row is an object with a question")
    form, files = _files(content, folder)
    options = content.get("options") or []
    if not isinstance(options, list):
        raise Fault("unknown form", "options is not a list of texts")
    answer = as_text(content.get("answer"))
    if not answer.strip():
        raise Fault("no answer", "nobody knows what is right, so nothing can be earned")
    return QuestionRow(
        id=name,
        form=form,
        files=files,
        question=as_text(content["question"]),
        answer=answer,
        type=as_text(content.get("type")) or ("choice" if options else "text"),
        options=tuple(as_text(option) for option in options),
    )


def _files(content: Mapping[str, Any], folder: PictureFolder) -> tuple[str, tuple[str, ...]]:
    given = [name for name in (*FORMS, "image") if content.get(name)]
    if len(given) != 1:
        raise Fault("unknown form", f"one of {', '.join(FORMS)} is needed, got {given or 'none'}")
    if given[0] == "video":
        path = folder.path(as_text(content["video"]))
        if not os.path.exists(path):
            raise Fault("missing video", f"no video {shown(path, 300)}")
        return "video", (path,)
    named = {"images": content["frames"]} if given[0] == "frames" else content
    form = "frames" if given[0] == "frames" else "images"
    return form, tuple(folder.located(picture) for picture in image_names(named))
