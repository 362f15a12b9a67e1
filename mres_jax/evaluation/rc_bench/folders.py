"""Sets on disk: `items.jsonl`, pictures in an ArrayRecord file, and a card that is written last.

ArrayRecord rather than parquet: it is read at random places without decoding its neighbours, is a
source of grain as it stands, needs no further package, and carries checksums that are checked.
"""

import hashlib
import json
import os
import pathlib
import shutil
from collections.abc import Iterable, Mapping
from typing import Any, SupportsIndex

import numpy as np

from mres_jax.data.images import decode_image
from mres_jax.errors import MresError, RunError
from mres_jax.evaluation.rc_bench.cards import describe
from mres_jax.evaluation.rc_bench.cuts import Cuts
from mres_jax.evaluation.rc_bench.items import Item
from mres_jax.files import check_directory, disk_reason

CARD, ITEMS, PICTURES, README = "card.json", "items.jsonl", "pictures.array_record", "README.md"
FORMAT = 1


class RCSet:
    """A set on disk: its items in memory, its pictures one at a time. Made by `open_set`.

    It is a random-access source as grain takes them: `(item, picture file as bytes)` by number.
    """

    def __init__(self, folder: pathlib.Path, items: tuple[Item, ...], card: Mapping[str, Any]):
        self.folder, self.items, self.card = folder, items, card
        self._reader: Any = None

    def __len__(self) -> int:
        """Items."""
        return len(self.items)

    def __getitem__(self, index: SupportsIndex) -> tuple[Item, bytes]:
        """Returns an item with its picture, the bytes of a PNG, JPEG, WebP, BMP or GIF file.

        Raises:
          MresError: the file of pictures is damaged.
        """
        item = self.items[index]
        content = self._read(range(len(self))[index])
        if hashlib.sha256(content).hexdigest() != item.sha256:
            raise MresError(f"set {self.folder}: the picture of item {item.id} is damaged.")
        return item, content

    def image(self, index: SupportsIndex) -> np.ndarray:
        """Returns the picture of an item, `uint8 [h w 3]`."""
        item, content = self[index]
        return decode_image(content, name=item.id)

    def __getstate__(self) -> dict[str, Any]:
        """What worker processes get: they open the file themselves."""
        return self.__dict__ | {"_reader": None}

    def _read(self, number: int) -> bytes:
        from array_record.python.array_record_module import ArrayRecordReader

        path = self.folder / PICTURES
        try:
            if self._reader is None:
                self._reader = ArrayRecordReader(os.fspath(path))
            if self._reader.num_records() != len(self):  # a cut file says 0, and no more
                count = self._reader.num_records()
                raise MresError(
                    f"set {self.folder}: {PICTURES} has {count} of {len(self)} records."
                )
            return self._reader.read([number])[0]
        except (OSError, RuntimeError, IndexError, ValueError) as error:
            if isinstance(error, MresError):
                raise
            reason = " ".join(str(error).split())[:120]
            raise MresError(f"set {self.folder}: {PICTURES} cannot be read ({reason}).") from None


def write_set(
    folder: str | os.PathLike,
    items: Iterable[tuple[Item, bytes]],
    *,
    cuts: Cuts,
    made: Mapping[str, Any],
) -> RCSet:
    """Writes a set into a new folder, which appears when it is whole.

    Args:
      folder: must not exist, or be empty.
      items: with the bytes of their pictures.
      cuts: that the cells are of.
      made: how, for the card: `origin` is `generated`, `balanced` or `as given`; plain values.

    Raises:
      MresError: the folder has something in it; nothing was written.
    """
    folder = check_new(folder)
    scratch = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    try:
        scratch.mkdir(parents=True)
        card = _write_parts(scratch, items, cuts, made)
        (scratch / README).write_text(describe(card), encoding="utf-8")
        (scratch / CARD).write_text(json.dumps(card, indent=2, ensure_ascii=False) + "\n")
        if folder.exists():
            folder.rmdir()
        scratch.rename(folder)
    except OSError as error:
        raise RunError(f"set {folder}: {disk_reason(error)}; nothing was written.") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return open_set(folder)


def check_new(folder: str | os.PathLike) -> pathlib.Path:
    """Returns the path of a folder that can be written; raises `MresError` where it has a file."""
    folder = check_directory(folder).absolute()
    if folder.exists() and any(folder.iterdir()):
        raise MresError(f"set {folder}: the folder is not empty. Name a new one.")
    return folder


def _write_parts(
    folder: pathlib.Path,
    items: Iterable[tuple[Item, bytes]],
    cuts: Cuts,
    made: Mapping[str, Any],
) -> dict[str, Any]:
    from array_record.python.array_record_module import ArrayRecordWriter

    writer = ArrayRecordWriter(os.fspath(folder / PICTURES), "group_size:1")
    counts: dict[str, int] = {}
    with (folder / ITEMS).open("w", encoding="utf-8") as file:
        for item, content in items:
            writer.write(content)
            file.write(json.dumps(item.to_dict(), ensure_ascii=False) + "\n")
            cell = "/".join(item.cell)
            counts[cell] = counts.get(cell, 0) + 1
    writer.close()
    return {
        "format": FORMAT,
        **made,
        "num_items": sum(counts.values()),
        "cuts": {"areas": list(cuts.areas), "ratios": list(cuts.ratios)},
        "cells": counts,
        "items_sha256": _digest(folder / ITEMS),
    }


def open_set(folder: str | os.PathLike) -> RCSet:
    """Opens a set; its pictures are not touched.

    Raises:
      MresError: no set there, or one that was changed since it was written.
    """
    folder = pathlib.Path(folder)
    if not (folder / CARD).is_file():
        raise MresError(f"set {folder}: has no {CARD}. Make a set with mres rcbench make.")
    try:
        card = json.loads((folder / CARD).read_text(encoding="utf-8"))
        lines = (folder / ITEMS).read_bytes().split(b"\n")
        items = tuple(Item.from_dict(json.loads(line)) for line in lines if line)
        same = _digest(folder / ITEMS) == card["items_sha256"] and len(items) == card["num_items"]
    except (OSError, KeyError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:120]
        raise MresError(f"set {folder}: cannot be read ({reason}). Make it anew.") from None
    if not same:
        raise MresError(f"set {folder}: {ITEMS} is not what {CARD} was written for. Make it anew.")
    return RCSet(folder, items, card)


def _digest(path: pathlib.Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
