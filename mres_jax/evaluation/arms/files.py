"""Rows of a user's file -> questions; all of them, or a count of what is wrong."""

import itertools
import os
import pathlib

from mres_jax.config import QuestionFile
from mres_jax.data.ends import ends_well
from mres_jax.data.images import decode_image
from mres_jax.data.rows import Questioning, QuestionRow, scan_questions
from mres_jax.data.rows.pictures import PictureFolder
from mres_jax.data.rows.summary import Tally
from mres_jax.data.rows.tasks import rows_file
from mres_jax.data.rows.types import BAD_KINDS, Fault, shown
from mres_jax.data.spec import ProcessorSpec
from mres_jax.data.video import FrameSampling
from mres_jax.errors import BadImageError, BadRowError, ConfigError, MresError, suggest
from mres_jax.evaluation.arms.metrics import METRICS, grade_row
from mres_jax.evaluation.arms.questions import AskedQuestion, Grade
from mres_jax.evaluation.rc_bench.cuts import Cuts
from mres_jax.files import system_reason
from mres_jax.geometry import Size
from mres_jax.protocols import Answer, Item

MAX_CHARS = 20_000  # of a question or an answer: more is a file of something else
_KINDS = (*BAD_KINDS, "duplicate id", "too long")


def read_questions(task: QuestionFile) -> list[AskedQuestion]:
    """Returns the questions of a file.

    Raises:
      ConfigError: an unknown metric.
      MresError: no such file; rows that cannot be used, counted by kind; no rows.
    """
    if task.metric is not None and task.metric not in METRICS:
        raise ConfigError(
            f"metric {task.metric!r}: there is none{suggest(task.metric, METRICS)}; have "
            f"{', '.join(METRICS)}."
        )
    file = rows_file(pathlib.Path(task.path))
    folder = PictureFolder(file.parent if task.images is None else pathlib.Path(task.images))
    tally, questions, count = Tally(), [], 0
    asked = Questioning(scorers=tuple(METRICS), scorer=task.metric)
    for name, row in scan_questions(file, folder, asked):
        count += 1
        try:
            if isinstance(row, Fault):
                raise row
            _check(row)
            questions.append(question_of(row))
        except (Fault, BadRowError) as fault:
            tally.add(fault.kind, shown(name), fault.reason)
    if findings := tally.findings(_KINDS):
        _, reason = findings[0].first[0]
        raise MresError(
            f"questions {task.path}: {', '.join(map(str, findings))}, of {count:,} rows: "
            f"{reason}. Nothing was asked."
        )
    if not questions:
        raise MresError(f"questions {task.path}: the file has no rows.")
    return questions


def _check(row: QuestionRow) -> None:
    """Raises `Fault` for a row that no answer could be scored by."""
    for text in (row.question, *row.answers, *row.options):
        if len(text) > MAX_CHARS:
            raise Fault("too long", f"{len(text):,} characters of at most {MAX_CHARS:,}")
    if not row.is_graded:
        raise Fault("no answer", "nobody says what is right")
    metric = METRICS[row.scorer]
    if row.scorer in ("choices", "choice_f1") and len(row.options) < 2:
        raise Fault("unknown form", f"metric {row.scorer} needs at least two options")
    for answer in row.answers if metric.score else ():
        if not metric.reads(answer, row):
            reason = f"metric {row.scorer} ({metric.says}) cannot read the answer {shown(answer)!r}"
            raise Fault("no answer", reason)


def question_of(
    row: QuestionRow, *, group: str = "", metric: str = "", grade: Grade | None = None
) -> AskedQuestion:
    """Returns a row as a question.

    Args:
      row: of a file or of a benchmark.
      group: as in `AskedQuestion`; empty: questions about the same files are one.
      metric: name of `grade`; empty: the row's own.
      grade: in place of the row's metric.

    Raises:
      BadRowError: a picture without a size, or one whose file breaks off.
    """
    sizes = row.sizes()
    _check_whole(row)
    clips = [(clip,) if isinstance(clip, str) else clip for clip in row.clips]
    given = itertools.chain(row.pictures, *clips)
    files = [file for file in given if isinstance(file, str)]

    def open_items(spec: ProcessorSpec | None) -> list[Item]:
        return row.items(FrameSampling.of(spec))

    def score(answer: Answer) -> float:
        return grade_row(row, answer)

    return AskedQuestion(
        id=row.id,
        text=row.prompt,
        answers=row.answers,
        metric=metric or row.scorer,
        grade=grade or score,
        open=open_items,
        type=row.type,
        group=group or "|".join(files) or row.id,
        sizes=tuple(sizes),
        cell=_cell(sizes),
        text_height=row.text_height,
        box=row.box,
        made_of=" ".join(str(os.path.getsize(file)) for file in files),
    )


def _check_whole(row: QuestionRow) -> None:
    """Decodes pictures whose files do not end as they should: before any question is asked."""
    frames = (frame for clip in row.clips if not isinstance(clip, str) for frame in clip)
    for picture in (*row.pictures, *frames):
        try:
            if not ends_well(picture):
                decode_image(picture)
        except BadImageError as error:
            raise BadRowError(row.id, str(error)) from None
        except OSError as error:
            reason = f"picture {shown(picture, 300)}: {system_reason(error).lower()}"
            raise BadRowError(row.id, reason, "missing picture") from None


def _cell(sizes: list[Size]) -> tuple[str, str] | None:
    return Cuts().cell(max(sizes, key=lambda size: size.area)) if sizes else None
