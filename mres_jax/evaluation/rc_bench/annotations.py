"""Annotated pictures of a user -> questions with answers: JSON beside a folder, or parquet."""

import dataclasses
import math
import os
import pathlib
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from mres_jax.data.images import read_header
from mres_jax.data.rows.forms import row_id
from mres_jax.data.rows.headers import Headers
from mres_jax.data.rows.pictures import PictureFolder
from mres_jax.data.rows.scan import scan_rows
from mres_jax.data.rows.summary import Finding, Tally
from mres_jax.data.rows.types import Fault, shown
from mres_jax.data.video import FrameSampling
from mres_jax.data.wire import is_data_url
from mres_jax.errors import BadImageError, MresError
from mres_jax.evaluation.rc_bench.items import METRICS, Metric
from mres_jax.files import check_shards
from mres_jax.geometry import Size
from mres_jax.quantities import read_quantity, unit_of

NAMES = {  # what a field may be called, the first that is there counts
    "picture": ("images", "image", "picture", "img"),
    "question": ("question", "query", "prompt"),
    "answers": ("answers", "answer", "label"),
    "id": ("id", "question_id", "questionId", "index"),
    "metric": ("metric", "scorer"),
}
MAX_CHARS = 4096  # of a question or an answer
BAD_KINDS = (
    "not JSON",
    "unknown form",
    "no answer",
    "duplicate id",
    "unsafe path",
    "missing picture",
    "bad picture",
)
_LONG = (5, 30)  # words, columns: from here on an answer is a phrase


@dataclasses.dataclass(frozen=True, kw_only=True)
class Annotated:
    """One question about one picture of the user's.

    Attributes:
      number: of its row, from 0.
      id: of its row.
      question: as it is asked.
      answers: any of them is right.
      metric: given, or None.
      type: given, or `rc`.
      picture: name of the picture, or of its content where the row holds it.
      size: of the upright picture, px.
    """

    number: int
    id: str
    question: str
    answers: tuple[str, ...]
    metric: Metric | None
    type: str
    picture: str
    size: Size


@runtime_checkable
class Source(Protocol):
    """Where annotated pictures come from.

    Attributes:
      name: of the file.
      rows: usable ones.
      bad: the others, counted.
    """

    @property
    def name(self) -> str: ...

    @property
    def rows(self) -> Sequence[Annotated]: ...

    @property
    def bad(self) -> Sequence[Finding]: ...

    def picture(self, row: Annotated) -> bytes:
        """Returns the file of a row's picture; raises BadImageError where it is gone."""
        ...


def open_source(path: str | os.PathLike, *, images: str | os.PathLike | None = None) -> Source:
    """Opens annotated pictures.

    Args:
      path: a JSON list or JSON lines of `{id, image, question, answer or answers, metric}`, whose
        pictures are files; or a parquet file of the same columns that holds its pictures, as
        Hugging Face writes it, or a folder of such, which are read in the order of their names.
      images: folder that pictures are named from; the folder of `path` by default.

    Raises:
      MresError: no such file, shards of a folder are missing, another format, or no rows.
    """
    file = pathlib.Path(path)
    if not (file.is_file() or file.is_dir()):
        raise MresError(f"rcbench {path}: no such file.")
    shards = sorted(file.glob("*.parquet")) if file.is_dir() else [file]
    if file.is_dir():
        check_shards(shards, what=f"rcbench {path}")
    if not shards:
        raise MresError(
            f"rcbench {path}: is a directory without parquet files; name the file of questions in "
            "it."
        )
    if shards[0].suffix == ".parquet":
        from mres_jax.evaluation.rc_bench.parquet import ParquetSource

        return ParquetSource(file, shards)
    return JsonSource(file, pathlib.Path(images) if images is not None else file.parent)


class JsonSource:
    """Questions in a JSON file, pictures in a folder."""

    def __init__(self, file: pathlib.Path, folder: pathlib.Path):
        if not folder.is_dir():
            raise MresError(f"rcbench {file}: the picture folder {folder} is no directory.")
        self.name = str(file)
        self._folder = PictureFolder(folder.absolute())
        contents = [found.content for found in scan_rows(file)]
        with Headers(self._folder, FrameSampling()) as headers:
            headers.read(name for each in contents if (name := _named(each)))

            def look(content: Any) -> tuple[str, Size]:
                picture = picture_of(content)
                extent, _ = headers.of(picture)
                return picture, extent if isinstance(extent, Size) else extent.size

            self.rows, self.bad = collect(enumerate(contents), look)

    def picture(self, row: Annotated) -> bytes:
        """Returns the file of a row's picture."""
        try:
            return pathlib.Path(self._folder.path(row.picture)).read_bytes()
        except OSError as error:
            raise BadImageError(f"picture {shown(row.picture)}: {error.strerror}.") from None


def _named(content: Any) -> str | None:
    try:
        return picture_of(content)
    except Fault:
        return None


def picture_of(content: Any) -> str:
    """Returns the name of the one picture of a row; raises `Fault`."""
    value = field(content, "picture")
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list) or len(names) != 1 or not isinstance(names[0], str):
        raise Fault("unknown form", f"one picture is asked about; got {shown(value)!r}")
    if is_data_url(names[0]):
        raise Fault("unsafe path", f"{shown(names[0], 40)} is an address; save it as a file")
    return names[0]


def collect(
    contents: Iterable[tuple[int, Any]], look: Callable[[Any], tuple[str, Size]]
) -> tuple[list[Annotated], tuple[Finding, ...]]:
    """Returns the usable rows of a file, and the others by kind.

    Args:
      contents: number and fields of each row, or the `Fault` of one that cannot be read.
      look: fields -> name and size of the upright picture, px; raises `Fault`. One picture has one
        name.
    """
    rows: list[Annotated] = []
    tally, seen = Tally(), set()
    for number, content in contents:
        name = row_id({"id": field(content, "id")}, number)
        try:
            row = _annotated(number, name, content, look)
            if name in seen:
                raise Fault("duplicate id", "a row before it has the same id")
        except Fault as fault:
            tally.add(fault.kind, name, fault.reason)
        else:
            seen.add(name)
            rows.append(row)
    return rows, tally.findings(BAD_KINDS)


def field(content: Any, name: str) -> Any:
    """Returns a field of a row under the first of its names that has a value, or None."""
    if not isinstance(content, Mapping):
        return None
    return next((content[key] for key in NAMES[name] if content.get(key) is not None), None)


def _annotated(
    number: int, name: str, content: Any, look: Callable[[Any], tuple[str, Size]]
) -> Annotated:
    if isinstance(content, Fault):
        raise content
    if not isinstance(content, Mapping):
        raise Fault("unknown form", f"a row is an object, got {type(content).__name__}")
    metric = field(content, "metric")
    if metric is not None and metric not in METRICS:
        raise Fault("unknown form", f"no metric {shown(metric)!r}; have {', '.join(METRICS)}")
    answers = field(content, "answers")
    answers = answers if isinstance(answers, list) else [answers]
    kind = content.get("type")
    picture, size = look(content)
    return Annotated(
        number=number,
        id=name,
        question=_text(field(content, "question"), "question"),
        answers=tuple(_text(answer, "answer") for answer in answers),
        metric=metric,
        type=kind if isinstance(kind, str) and kind else "rc",
        size=size,
        picture=picture,
    )


def _text(value: Any, what: str) -> str:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if is_number and math.isfinite(value):
        value = str(value)
    if not isinstance(value, str) or not value.strip():
        kind = "no answer" if what == "answer" else "unknown form"
        raise Fault(kind, f"the {what} is {shown(repr(value), 40)}")
    if len(value) > MAX_CHARS:
        raise Fault("unknown form", f"the {what} has {len(value):,} characters of {MAX_CHARS:,}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise Fault("unknown form", f"the {what} has half a character") from None
    return value


def header_of(content: bytes, name: str) -> Size:
    """Returns the upright size of a picture in memory; raises `Fault`."""
    try:
        return read_header(content, name=name).size
    except BadImageError as error:
        raise Fault("bad picture", str(error).rstrip(".")) from None


def guess_metric(answers: Sequence[str]) -> Metric:
    """Returns how answers are scored where nobody says: amounts, phrases, or neither.

    A phrase has at least 5 words or 30 columns (a Chinese character takes two).

    Example:
      >>> [guess_metric([x]) for x in ("61.1%", "Kappa", "12 Long Lane, Springfield, Ohio")]
      ['unit', 'exact', 'anls']
    """
    if all(_is_amount(answer) for answer in answers):
        return "unit"
    longest = max(max(len(a.split()) / _LONG[0], _columns(a) / _LONG[1]) for a in answers)
    return "anls" if longest >= 1 else "exact"


def _is_amount(text: str) -> bool:
    quantity = read_quantity(text)
    return quantity is not None and all(not unit or unit_of(unit) for _, unit in quantity.parts)


def _columns(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text)
