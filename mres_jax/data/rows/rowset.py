"""A data set of rows on disk: sizes from its index, examples from its files."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from mres_jax.data.assemble import assemble, measure_views
from mres_jax.data.conversations import Message
from mres_jax.data.images import decode_pillow
from mres_jax.data.rows.clips import read_clip
from mres_jax.data.rows.files import Files, label
from mres_jax.data.rows.forms import parse_row, row_id
from mres_jax.data.rows.index import Reading, RowIndex
from mres_jax.data.rows.sources.source import Source
from mres_jax.data.rows.summary import NAMED, Finding, Tally
from mres_jax.data.rows.types import BAD_KINDS, Fault, Moving, Row, shown
from mres_jax.data.spec import ProcessorSpec
from mres_jax.data.tokenizer import Tokenizer
from mres_jax.data.types import Example
from mres_jax.errors import BadImageError, BadRowError, MresError
from mres_jax.geometry import ClipSize, Extent, Size, View
from mres_jax.protocols import Clip, Item

ToViews = Callable[[Sequence[Extent], str, ProcessorSpec], Sequence[View]]  # a policy, for example


class Measured(NamedTuple):
    """What the rows of a set take of packs under one policy.

    Attributes:
      rows: `int64 [k]`, the rows of the set that the policy takes.
      sizes: `int64 [k 3]`, patches, tokens and views of each, as `ExampleSize`.
      refused: rows that it does not take, such as strips beyond a model's aspect ratio; None where
        it takes all.
    """

    rows: np.ndarray
    sizes: np.ndarray
    refused: Finding | None


class RowSet:
    """The usable rows of a source, by their place among them; made by `open_rows`.

    It can be sent to worker processes. Everything about row `i` follows from its number alone.

    Attributes:
      source: of the rows and of their files.
      index: integers of all rows.
      spec: of the model, with the template that the rows are read with.
      tokenizer: of the model.
    """

    def __init__(
        self,
        source: Source,
        index: RowIndex,
        reading: Reading,
        spec: ProcessorSpec,
        tokenizer: Tokenizer,
    ):
        self.source, self.index, self.reading = source, index, reading
        self.spec = dataclasses.replace(spec, template=reading.template)
        self.tokenizer = tokenizer
        self._usable = index.usable

    def __len__(self) -> int:
        """Rows that can be used."""
        return len(self._usable)

    def row(self, i: int) -> Row:
        """Returns a row, read from its file.

        Raises:
          BadRowError: the file is another one than was indexed.
        """
        return self._read(i)[0]

    def messages(self, i: int) -> list[Message]:
        """Returns the turns of a row with its pictures placed; raises as `row` does."""
        return self.reading.messages(self.row(i))

    def sizes(self, i: int) -> tuple[Extent, ...]:
        """Returns the upright sizes of a row's pictures, px, and of its clips, from the index."""
        return self.index.sizes(int(self._usable[i]))

    @property
    def has_clip(self) -> np.ndarray:
        """`bool [rows]`, which rows have a clip, from the index."""
        return self.index.has_clip[self._usable]

    def images(self, i: int) -> list[Item]:
        """Returns the pictures of a row, `uint8 [h w 3]`, and its clips; raises as `example`."""
        items = self._items(*self._read(i), i)
        return [item if isinstance(item, Clip) else np.asarray(item) for item in items]

    def measure(self, to_views: ToViews) -> Measured:
        """Returns what every row takes of a pack, from integers alone.

        Each size is that of `example`. The policy sees pictures' sizes and no question.

        Args:
          to_views: a policy.
        """
        known: dict[tuple[Extent, ...], Any] = {}
        table, refused, tally = np.zeros((len(self), 3), np.int64), [], Tally()
        for i, number in enumerate(self._usable.tolist()):
            sizes = self.index.sizes(number)
            if sizes not in known:
                known[sizes] = self._measure(sizes, to_views)
            if isinstance(known[sizes], Fault):
                refused.append(i)
                name = self._name(number) if len(refused) <= NAMED else ""
                tally.add("refused by policy", name, known[sizes].reason)
            else:
                table[i] = known[sizes]
        table[:, 1] += self.index.text_tokens[self._usable]
        taken = np.setdiff1d(np.arange(len(self)), refused)
        return Measured(taken, table[taken], next(iter(tally.findings(BAD_KINDS)), None))

    def example(self, i: int, to_views: ToViews, *, label_mask: str | None = "answer") -> Example:
        """Returns a row with its pictures, ready to be packed.

        Args:
          i: of the row.
          to_views: a policy, the same that the row was measured with.
          label_mask: which tokens are to be predicted, see `tokenize_messages`.

        Raises:
          BadRowError: a picture or clip cannot be decoded, or it or the row changed since the
            index.
        """
        (row, files), sizes = self._read(i), self.sizes(i)
        images = self._items(row, files, i)
        try:
            messages = self.reading.messages(row)
            views = to_views(sizes, "", self.spec)
        except Fault as fault:
            raise BadRowError(row.id, fault.reason, fault.kind) from None
        except MresError as error:
            raise BadRowError(row.id, str(error), "refused by policy") from None
        return assemble(images, views, messages, self.spec, self.tokenizer, label_mask=label_mask)

    def _read(self, i: int) -> tuple[Row, Files]:
        """A row, and what its names stand for."""
        number = int(self._usable[i])
        found = None
        try:
            found = self.index.found(self.source, number)
            files = self.source.files if found.files is None else found.files
            return parse_row(found.content, number)[0], files
        except Fault as fault:
            name = row_id(found and found.content, number)
            raise BadRowError(name, fault.reason, fault.kind) from None

    def _items(self, row: Row, files: Files, i: int) -> list[Image.Image | Clip]:
        try:
            return [
                self._item(name, files, extent)
                for name, extent in zip(row.images, self.sizes(i), strict=True)
            ]
        except Fault as fault:
            raise BadRowError(row.id, fault.reason, fault.kind) from None

    def _measure(self, sizes: tuple[Extent, ...], to_views: ToViews) -> Any:
        try:
            return measure_views(to_views(sizes, "", self.spec), self.spec, self.tokenizer)
        except MresError as error:
            return Fault("refused by policy", str(error))

    def _item(self, name: str | Moving, files: Files, extent: Extent) -> Image.Image | Clip:
        if isinstance(name, Moving):
            clip = read_clip(name, files, self.reading.sampling)
            self._check_unchanged(f"video {shown(name.name)}", clip.extent, extent)
            return clip
        try:
            pixels = decode_pillow(files.picture(name), name=label(name))
        except BadImageError as error:
            raise files.fault(name, error) from None
        size = Size(pixels.height, pixels.width)
        self._check_unchanged(f"picture {shown(name)}", size, extent)
        return pixels

    def _check_unchanged(self, what: str, now: Extent, indexed: Extent) -> None:
        if now != indexed:
            raise Fault(
                "changed",
                f"{what} is {_described(now)}, but {_described(indexed)} in the index. Run mres "
                f"data prepare {self.source.place}",
            )

    def _name(self, number: int) -> str:
        try:
            return row_id(self.index.found(self.source, number).content, number)
        except (Fault, MresError):
            return row_id(None, number)


def _described(extent: Extent) -> str:
    """Of another clip of the same size and frames, the times tell."""
    if not isinstance(extent, ClipSize):
        return f"{extent.width} x {extent.height} px"
    (height, width), times, _ = extent
    return (
        f"{len(times)} frames of {width} x {height} px up to {times[-1]:.3f} s of "
        f"{extent.length:.3f} s"
    )
