"""The index of a data set: where its rows stand and the integers that sizes follow from.

Axes: n rows, m pictures and clips of all usable rows in their order, f frames of the clips.
"""

import array
import dataclasses
import itertools
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from mres_jax.data.clip_texts import joined_texts
from mres_jax.data.conversations import (
    Message,
    lay_out,
    place_images,
    plain_messages,
)
from mres_jax.data.rows.files import Files
from mres_jax.data.rows.forms import parse_row, row_id
from mres_jax.data.rows.headers import Headers
from mres_jax.data.rows.scan import Found
from mres_jax.data.rows.sources.source import Source
from mres_jax.data.rows.summary import Summary, Tally
from mres_jax.data.rows.types import BAD_KINDS, UNNAMED, Fault, Row
from mres_jax.data.spec import ChatTemplate
from mres_jax.data.tokenizer import Tokenizer
from mres_jax.data.video import FrameSampling
from mres_jax.errors import PromptError
from mres_jax.geometry import ClipSize, Extent, Size

_CHUNK = 1024  # rows that are looked at together
_CHUNK_BYTES = 1 << 26  # of files that they hold


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reading:
    """How rows become prompts.

    Attributes:
      template: around turns and pictures.
      is_plain: captions: a picture, its caption and nothing else.
      pictures_first: see `place_images`.
      sampling: which frames of clips are looked at.
      group: frames that the encoder sees at a time.
    """

    template: ChatTemplate
    sampling: FrameSampling
    group: int = 1
    is_plain: bool = False
    pictures_first: bool = True

    def messages(self, row: Row) -> list[Message]:
        """Returns the turns of a row with their pictures placed.

        Raises:
          Fault: they are none that this reading takes.
        """
        try:
            messages = place_images(
                row.turns, num_images=len(row.images), pictures_first=self.pictures_first
            )
        except PromptError as error:
            raise Fault(UNNAMED, str(error)) from None
        if not self.is_plain:
            return messages
        try:
            return plain_messages(messages)
        except PromptError as error:
            raise Fault("no caption", str(error)) from None


@dataclasses.dataclass(frozen=True, kw_only=True)
class RowIndex:
    """Integers of all rows, the bad ones included.

    Attributes:
      offsets: `int64 [n]`, first byte of each row in its file, or its number among records.
      lengths: `int32 [n]`, bytes.
      checksums: `uint32 [n]`, CRC-32 of these bytes.
      kinds: `uint8 [n]`, 0 for a usable row, else 1 + its place in `BAD_KINDS`.
      text_tokens: `int32 [n]`, tokens that are not visual and not around a view; 0 for a bad row.
      picture_starts: `int64 [n + 1]`, where the pictures and clips of each row begin.
      picture_sizes: `int32 [m 2]`, height and width of upright pictures and frames, px.
      frame_starts: `int64 [m + 1]`, where the frames of each clip begin; a picture has none.
      frame_times: `float64 [f]`, s, of the frames that are looked at.
      clip_seconds: `float64 [m]`, s, of the whole of each clip; 0 for a picture.
      summary: counts and names.
    """

    offsets: np.ndarray
    lengths: np.ndarray
    checksums: np.ndarray
    kinds: np.ndarray
    text_tokens: np.ndarray
    picture_starts: np.ndarray
    picture_sizes: np.ndarray
    frame_starts: np.ndarray
    frame_times: np.ndarray
    clip_seconds: np.ndarray
    summary: Summary

    @property
    def usable(self) -> np.ndarray:
        """`int64 [usable]`, numbers of the rows that can be used."""
        return np.flatnonzero(self.kinds == 0)

    @property
    def is_clip(self) -> np.ndarray:
        """`bool [m]`, which of pictures and clips are clips."""
        return np.diff(self.frame_starts) > 0

    @property
    def has_clip(self) -> np.ndarray:
        """`bool [n]`, which rows have a clip among their pictures."""
        before = np.concatenate([[0], np.cumsum(self.is_clip)])
        return np.diff(before[self.picture_starts]) > 0

    def sizes(self, number: int) -> tuple[Extent, ...]:
        """Upright sizes of the pictures of one row, px; of clips, times too."""
        start, end = self.picture_starts[number : number + 2].tolist()
        sizes = [Size(*size) for size in self.picture_sizes[start:end].tolist()]
        frames = self.frame_starts[start : end + 1].tolist()
        if not sizes or frames[0] == frames[-1]:
            return tuple(sizes)
        lengths = self.clip_seconds[start:end].tolist()
        return tuple(
            ClipSize(size, tuple(self.frame_times[first:last].tolist()), length)
            if last > first
            else size
            for size, length, (first, last) in zip(
                sizes, lengths, itertools.pairwise(frames), strict=True
            )
        )

    def found(self, source: Source, number: int) -> Found:
        """Returns one row of the source, as `Source.scan` does.

        Raises:
          Fault: the source is another one than was indexed.
        """
        offset = int(self.offsets[number])
        content = source.read(offset, int(self.lengths[number]))
        if zlib.crc32(content) != self.checksums[number]:
            raise Fault("changed", f"{source.place} changed since its index. Start again")
        return source.decode(offset, content)


def build_index(source: Source, reading: Reading, tokenizer: Tokenizer) -> RowIndex:
    """Reads every row and every header of a picture or clip once.

    Raises:
      MresError: the source holds no rows, see `Source.scan`.
    """
    columns, tally = _Columns(), Tally()
    reader, numbers, ids = _Reader(reading, tokenizer), itertools.count(), set()
    with Headers(source.files, reading.sampling) as headers:
        for chunk in _chunks(source.scan()):
            reads = [reader.read(found, next(numbers)) for found in chunk]
            headers.read(
                name
                for found, read in zip(chunk, reads, strict=True)
                if read.row and found.files is None
                for name in read.row.images
            )
            reads = [
                reader.with_clips(_with_sizes(read, found.files, headers))
                for found, read in zip(chunk, reads, strict=True)
            ]
            for found, read, tokens in zip(chunk, reads, reader.text_tokens(reads), strict=True):
                columns.add(found, read, tokens)
                _count(read, tally, ids)
    return columns.index(tally, source.name)


class _Read(NamedTuple):
    """What became of one row; `row` is None if it is bad."""

    name: str
    row: Row | None = None
    texts: tuple[tuple[str, bool], ...] = ()  # (text, is it trusted)
    notes: tuple[str, ...] = ()
    sizes: tuple[Extent, ...] = ()
    fault: Fault | None = None


class _Reader:
    """Rows to texts, and texts to counts of tokens."""

    def __init__(self, reading: Reading, tokenizer: Tokenizer):
        self.reading, self.tokenizer = reading, tokenizer
        self.trusted: dict[str, int] = {}

    def read(self, found: Found, number: int) -> _Read:
        content, name = found.content, row_id(found.content, number)
        try:
            if isinstance(content, Fault):
                raise content
            row, notes = parse_row(content, number)
            texts = self._texts(row)
        except Fault as fault:
            return _Read(name, fault=fault)
        except PromptError as error:
            return _Read(name, fault=Fault("empty turn", str(error)))
        return _Read(name, row, texts, notes)

    def with_clips(self, read: _Read) -> _Read:
        """Adds what a template writes about clips, where it is encoded with its neighbours."""
        template = self.reading.template
        if read.row is None or not template.is_joined:
            return read
        clips = {
            i: joined_texts(
                template,
                extent.middles(self.reading.group),
                num_frames=len(extent.times),
                seconds=extent.length,
            )
            for i, extent in enumerate(read.sizes)
            if isinstance(extent, ClipSize)
        }
        return read._replace(texts=self._texts(read.row, clips)) if clips else read

    def _texts(
        self, row: Row, clips: Mapping[int, tuple[str, str]] | None = None
    ) -> tuple[tuple[str, bool], ...]:
        spans = lay_out(self.reading.messages(row), self.reading.template, clips=clips)
        return tuple((span.text, span.is_trusted) for span in spans if span.item is None)

    def text_tokens(self, reads: Sequence[_Read]) -> Iterator[int]:
        """Tokens of each row, none for a bad one."""
        plain = [text for read in reads for text, trusted in read.texts if not trusted]
        counts = iter(self.tokenizer.count_text(plain))
        for read in reads:
            yield sum(
                self._trusted(text) if trusted else next(counts) for text, trusted in read.texts
            )

    def _trusted(self, text: str) -> int:
        if text not in self.trusted:
            self.trusted[text] = len(self.tokenizer.encode_trusted(text))
        return self.trusted[text]


def _with_sizes(read: _Read, files: Files | None, headers: Headers) -> _Read:
    if read.row is None:
        return read
    try:
        found = [headers.of(name, files) for name in read.row.images]
    except Fault as fault:
        return _Read(read.name, fault=fault)
    wrong = () if all(matches for _, matches in found) else ("wrong extension",)
    return read._replace(sizes=tuple(size for size, _ in found), notes=read.notes + wrong)


def _count(read: _Read, tally: Tally, ids: set[str]) -> None:
    if read.fault is not None:
        tally.add(read.fault.kind, read.name, read.fault.reason)
        return
    for note in read.notes:
        tally.add(note, read.name)
    if read.name in ids:
        tally.add("duplicate id", read.name)
    ids.add(read.name)


class _Columns:
    """Grows the arrays of an index."""

    def __init__(self):
        self.offsets, self.lengths, self.checksums = (array.array(t) for t in "qqI")
        self.kinds, self.text_tokens = array.array("B"), array.array("q")
        self.counts, self.sizes = array.array("q"), array.array("q")
        self.frames, self.times = array.array("q"), array.array("d")
        self.seconds = array.array("d")

    def add(self, found: Found, read: _Read, text_tokens: int) -> None:
        self.offsets.append(found.offset)
        self.lengths.append(len(found.source))
        self.checksums.append(zlib.crc32(found.source))
        self.kinds.append(0 if read.fault is None else 1 + BAD_KINDS.index(read.fault.kind))
        self.text_tokens.append(text_tokens)
        self.counts.append(len(read.sizes))
        for extent in read.sizes:
            is_clip = isinstance(extent, ClipSize)
            times = extent.times if is_clip else ()
            self.sizes.extend(extent.size if is_clip else extent)
            self.frames.append(len(times))
            self.times.extend(times)
            self.seconds.append(extent.length if is_clip else 0.0)

    def index(self, tally: Tally, name: str) -> RowIndex:
        kinds, counts = np.array(self.kinds, np.uint8), np.array(self.counts, np.int64)
        frames = np.array(self.frames, np.int64)
        return RowIndex(
            offsets=np.array(self.offsets, np.int64),
            lengths=np.array(self.lengths, np.int32),
            checksums=np.array(self.checksums, np.uint32),
            kinds=kinds,
            text_tokens=np.array(self.text_tokens, np.int32),
            picture_starts=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
            picture_sizes=np.array(self.sizes, np.int32).reshape(-1, 2),
            frame_starts=np.concatenate([[0], np.cumsum(frames)]).astype(np.int64),
            frame_times=np.array(self.times, np.float64),
            clip_seconds=np.array(self.seconds, np.float64),
            summary=tally.summary(
                name,
                num_rows=len(kinds),
                num_text_only=int(((kinds == 0) & (counts == 0)).sum()),
                num_pictures=int((frames == 0).sum()),
                num_clips=int((frames > 0).sum()),
            ),
        )


def _chunks(rows: Iterator[Found]) -> Iterator[list[Found]]:
    chunk, size = [], 0
    for found in rows:
        chunk.append(found)
        size += 0 if found.files is None else found.files.num_bytes
        if len(chunk) == _CHUNK or size >= _CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk
