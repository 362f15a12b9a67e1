"""JSON files of rows -> where each row stands, without holding them: a list, or lines."""

import codecs
import json
from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol, runtime_checkable

from mres_jax.data.rows.files import Files
from mres_jax.data.rows.types import Fault, shown
from mres_jax.errors import MresError

_HEAD = 1 << 12  # bytes that tell what a file is
_BLOCK = 1 << 20  # bytes read at a time
_BLANK = " \t\r\n"
_BOM = codecs.BOM_UTF8


@runtime_checkable
class Openable(Protocol):
    """A path, on a disk or in a bucket."""

    def open(self, mode: str, /) -> Any:
        """Opens the file."""
        ...


class Found(NamedTuple):
    """One row of a file.

    Attributes:
      offset: of its first byte.
      source: its bytes, JSON.
      content: what they say, or the `Fault` of a line that is no JSON.
      files: what its names stand for, where it holds them itself.
    """

    offset: int
    source: bytes
    content: Any
    files: Files | None = None


def scan_rows(path: Openable) -> Iterator[Found]:
    """Yields the rows of a file in order, one at a time.

    Args:
      path: a JSON list of objects, or one object a line; what it is is read off its first byte.

    Raises:
      MresError: it is neither, or a list that breaks off.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD)
    start = len(_BOM) if head.startswith(_BOM) else 0
    head = head[start:].lstrip()
    if not head:
        raise MresError(f"rows {path}: the file is empty.")
    if head[:1] not in (b"[", b"{"):
        raise MresError(
            f"rows {path}: begins with {shown(repr(head[:12])[1:])}, but rows are a JSON list of "
            "objects or one object a line."
        )
    yield from (_scan_list if head[:1] == b"[" else _scan_lines)(path, start)


def decode_row(source: bytes) -> Any:
    """Returns the contents of a row.

    Raises:
      Fault: it is no JSON.
    """
    try:
        return json.loads(source)
    except (ValueError, RecursionError) as error:
        raise Fault("not JSON", f"no JSON ({shown(error)})") from None


def _scan_lines(path: Openable, offset: int) -> Iterator[Found]:
    with path.open("rb") as file:
        file.seek(offset)
        for line in file:
            source = line.strip()
            if source:
                try:
                    content = decode_row(source)
                except Fault as fault:
                    content = fault
                yield Found(offset + line.index(source), source, content)
            offset += len(line)


def _scan_list(path: Openable, offset: int) -> Iterator[Found]:
    with path.open("rb") as file:
        file.seek(offset)
        text = _Window(path, file, offset)
        text.skip("[")
        number = 0
        while (mark := text.peek()) != "]":
            if number:
                text.skip(",", f"row {number}")
            elif mark == ",":
                raise text.broken("row 0", "a comma")
            text.peek()
            yield text.value(f"row {number}")
            number += 1


class _Window:
    """The part of a file that is being read, as text, with the place of its first byte."""

    def __init__(self, path: Openable, file: Any, offset: int):
        self.path, self.file = path, file
        self.decode = codecs.getincrementaldecoder("utf-8")()
        self.text, self.at, self.offset, self.ended = "", 0, offset, False
        self.parse = json.JSONDecoder().raw_decode
        self.read(_BLOCK)

    def read(self, size: int) -> None:
        """Reads on; what was passed is forgotten."""
        block = self.file.read(size)
        self.ended = not block
        try:
            more = self.decode.decode(block, final=self.ended)
        except UnicodeDecodeError:
            place = self.file.tell() - len(block)
            raise MresError(
                f"rows {self.path}: not UTF-8 behind byte {place}. Save it as UTF-8."
            ) from None
        self.text, self.at = self.text[self.at :] + more, 0

    def advance(self, end: int) -> bytes:
        """Passes the text up to `end`; returns its bytes."""
        source = self.text[self.at : end].encode()
        self.at, self.offset = end, self.offset + len(source)
        return source

    def peek(self) -> str:
        """Passes white space; returns the next character, "" at the end."""
        while True:
            end = self.at
            while end < len(self.text) and self.text[end] in _BLANK:
                end += 1
            self.advance(end)
            if end < len(self.text) or self.ended:
                break
            self.read(_BLOCK)
        if self.at == len(self.text):
            raise self.broken("the list", "the end of the file")
        return self.text[self.at]

    def skip(self, mark: str, where: str = "the list") -> None:
        """Passes one mark."""
        if (found := self.peek()) != mark:
            raise self.broken(where, repr(found), f"; {mark!r} should follow")
        self.advance(self.at + 1)

    def value(self, where: str) -> Found:
        """Passes one value, reading on while it is cut off."""
        size = _BLOCK
        while True:
            try:
                content, end = self.parse(self.text, self.at)
                break
            except RecursionError:
                raise self.broken(where, "too many brackets in brackets") from None
            except json.JSONDecodeError as error:
                inside = error.pos < len(self.text) - 20 and "Unterminated" not in error.msg
                if self.ended or inside:
                    raise self.broken(where, error.msg.lower()) from None
            except ValueError as error:  # a number of thousands of digits
                raise self.broken(where, shown(error).lower()) from None
            self.read(size)
            size *= 2
        offset = self.offset
        return Found(offset, self.advance(end), content)

    def broken(self, where: str, found: str, rest: str = "") -> MresError:
        return MresError(
            f"rows {self.path}: the JSON list breaks at {where}, behind byte {self.offset}: "
            f"{found}{rest}. Was it copied whole?"
        )
