"""Rows of any source -> ArrayRecord shards with the bytes of their files, and their index.

A shard is written under another name, brought to the disk and then named; the card comes last. So
what has a card is whole, and what was stopped goes on behind the last whole shard.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from mres_jax.data.rows.cache import index_name, to_bytes
from mres_jax.data.rows.clips import clip_files
from mres_jax.data.rows.files import Contained, Files
from mres_jax.data.rows.forms import parse_row, row_id
from mres_jax.data.rows.headers import read_extent
from mres_jax.data.rows.index import RowIndex
from mres_jax.data.rows.rowset import RowSet
from mres_jax.data.rows.scan import Found
from mres_jax.data.rows.shards import ShardWriter
from mres_jax.data.rows.sources.addresses import Address
from mres_jax.data.rows.sources.fetched import FetchedRows
from mres_jax.data.rows.sources.prepared import BEGUN, CARD, FORMAT, INDEX, PreparedRows
from mres_jax.data.rows.sources.records import pack_record
from mres_jax.data.rows.types import BAD_KINDS, Fault, Moving, Row, shown
from mres_jax.data.rows.uploading import LEFT_OUT, check_vacant, written_here
from mres_jax.data.wire import is_data_url
from mres_jax.errors import MresError, RunError
from mres_jax.files import (
    check_directory,
    disk_reason,
    is_address,
    system_reason,
    write_together,
)

SHARD_BYTES = 256 << 20  # a shard ends with the row that makes it so large
MAX_ROW_BYTES = 1 << 30  # of the files of one row


def prepare_rows(
    rows: RowSet,
    directory: str | os.PathLike[str],
    *,
    shard_bytes: int = SHARD_BYTES,
    log: Callable[[str], None] = lambda line: None,
) -> PreparedRows:
    """Writes the usable rows of a set into a directory that needs no other file.

    Its rows, their sizes, plans and examples are those of `rows`, under every policy. Rows that
    cannot be used stand in `left_out.jsonl` with their kind. Stopped at any moment, the same call
    goes on where it was.

    For an address it is written into the user's caches first, uploaded when it is whole, the card
    last, and removed there.

    Args:
      rows: of any source, see `open_rows`.
      directory: new, empty, or begun by this call; of this machine, or an address.
      shard_bytes: see `SHARD_BYTES`.
      log: receives a line where the directory was begun before, and one for each shard.

    Returns:
      The directory, opened.

    Raises:
      MresError: the directory has something else in it, or was begun from other rows; another
        process writes it; a row's files are larger than `MAX_ROW_BYTES`, or changed meanwhile.
      RunError: the disk is full; what is whole stays. Or the address cannot be reached.
    """
    directory = check_unprepared(directory)
    if isinstance(directory, Address):
        key = f"{_fingerprint(rows.index)} {shard_bytes}"
        with written_here(directory, key, log) as folder:
            if not (folder / CARD).is_file():
                prepare_rows(rows, folder, shard_bytes=shard_bytes, log=log)
        return FetchedRows(directory, log)
    begun = {
        "format": FORMAT,
        "source": rows.source.name,
        "rows": _fingerprint(rows.index),
        "shard_bytes": shard_bytes,
    }
    try:
        with _begin(directory, begun):
            writer, left_out = ShardWriter(directory, shard_bytes, log), []
            writer.go_on()
            writer.write(_records(rows, left_out, skip=len(writer.lengths)))
            _finish(directory, rows, writer, left_out)
    except OSError as error:
        raise RunError(
            f"prepare {directory}: {disk_reason(error)}; whole shards are kept, and the same "
            "command goes on behind them."
        ) from error
    return PreparedRows(directory)


def check_unprepared(directory: str | os.PathLike[str]) -> pathlib.Path | Address:
    """Returns the whole path of a directory that has no card; raises `MresError` where it has."""
    if is_address(directory):
        address = Address(os.fspath(directory))
        check_vacant(address)
        return address
    directory = check_directory(directory).absolute()
    if (directory / CARD).is_file():
        raise MresError(f"prepare {directory}: is prepared already. Name a new directory.")
    return directory


def _fingerprint(index: RowIndex) -> str:
    """Tells whether the usable rows and the headers of their files are the same ones."""
    digest = hashlib.sha256()
    for column in (
        index.kinds == 0,
        index.lengths,
        index.checksums,
        index.picture_sizes,
        index.frame_times,
        index.clip_seconds,
    ):
        digest.update(np.ascontiguousarray(column).tobytes())
    return digest.hexdigest()


@contextlib.contextmanager
def _begin(directory: pathlib.Path, begun: dict[str, Any]) -> Iterator[None]:
    """Takes a directory for this process; what stands there is ours, or there is nothing."""
    import fcntl  # which not every system has

    path, content = directory / BEGUN, json.dumps(begun).encode()
    if path.is_file():
        if path.read_bytes() != content:
            raise MresError(
                f"prepare {directory}: was begun from other rows or settings. Remove it, or name "
                "a new directory."
            )
    elif directory.exists() and any(not _is_scratch(file) for file in directory.iterdir()):
        raise MresError(f"prepare {directory}: the directory is not empty. Name a new one.")
    else:
        write_together(directory, {BEGUN: content})
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise MresError(f"prepare {directory}: another process is writing it.") from None
        yield


def _is_scratch(file: pathlib.Path) -> bool:
    """Whether a file is what `write_together` leaves where it is killed."""
    return file.name.startswith(f".{BEGUN}.")


def _records(rows: RowSet, left_out: list[dict[str, Any]], *, skip: int) -> Iterator[bytes]:
    """The usable rows from `skip` on; those that are left out are noted."""
    index, count, number = rows.index, 0, -1
    for number, found in enumerate(rows.source.scan()):
        if number >= len(index.kinds) or zlib.crc32(found.source) != index.checksums[number]:
            raise _changed(rows, f"row {number}")
        if index.kinds[number]:
            kind = BAD_KINDS[int(index.kinds[number]) - 1]
            left_out.append({"row": number, "id": row_id(found.content, number), "kind": kind})
            continue
        count += 1
        if count > skip:
            yield _record(rows, found, number)
    if number + 1 != len(index.kinds):
        raise _changed(rows, "its end")


def _changed(rows: RowSet, what: str) -> MresError:
    return MresError(
        f"rows {rows.source.place}: {what} changed while it was prepared. Start again."
    )


def _record(rows: RowSet, found: Found, number: int) -> bytes:
    """One row with its files, which have to be those that were indexed."""
    row, _ = parse_row(found.content, number)
    try:
        content = _files_of(row, rows.source.files if found.files is None else found.files)
        held = Contained(content)
        now = [read_extent(name, held, rows.reading.sampling)[0] for name in row.images]
    except Fault as fault:
        raise MresError(f"rows {rows.source.place}: row {row.id}: {fault.reason}.") from None
    if tuple(now) != rows.index.sizes(number):
        raise _changed(rows, f"a picture or clip of row {row.id}")
    return pack_record({**found.content, "id": row.id}, content)


def _files_of(row: Row, files: Files) -> dict[str, bytes]:
    """The files that a row names, once each; a data URL stays in the row."""
    names: dict[str, None] = {}
    for item in row.images:
        names |= dict.fromkeys(clip_files(item, files) if isinstance(item, Moving) else [item])
    content: dict[str, bytes] = {}
    for name in names:
        if not is_data_url(name):
            content[name] = _bytes(files, name)
        if (size := sum(map(len, content.values()))) > MAX_ROW_BYTES:
            raise Fault(
                "bad video",
                f"its files have {size:,} bytes, more than {MAX_ROW_BYTES:,}. Cut the clip, or "
                "leave the row out",
            )
    return content


def _bytes(files: Files, name: str) -> bytes:
    found = files.find(name)
    if isinstance(found, bytes):
        return found
    try:
        with open(found, "rb") as file:
            return file.read(MAX_ROW_BYTES + 1)
    except OSError as error:
        raise Fault(
            "missing picture", f"{shown(name, 300)}: {system_reason(error).lower()}"
        ) from None


def _finish(
    directory: pathlib.Path,
    rows: RowSet,
    writer: ShardWriter,
    left_out: list[dict[str, Any]],
) -> None:
    """Writes what makes the directory whole, the card last but for the index, which can be made."""
    summary = rows.index.summary
    card = {
        "format": FORMAT,
        "source": rows.source.name,
        "template": "plain" if rows.reading.is_plain else "chat",
        "num_rows": len(rows),
        "num_pictures": summary.num_pictures,
        "num_clips": summary.num_clips,
        "bytes": sum(writer.lengths),
        "left_out": {finding.kind: finding.count for finding in summary.bad},
        "shards": [shard._asdict() for shard in writer.shards],
    }
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in left_out)
    write_together(directory, {LEFT_OUT: lines.encode()})
    write_together(directory, {CARD: json.dumps(card, indent=2).encode() + b"\n"})
    source = PreparedRows(directory)
    facts = {**source.facts(), "sha256": source.digest()}
    name = index_name(source, rows.reading, rows.tokenizer)
    content = to_bytes(_index(rows.index, directory.name, writer), facts)
    write_together(directory / INDEX, {name: content})
    (directory / BEGUN).unlink(missing_ok=True)


def _index(index: RowIndex, name: str, writer: ShardWriter) -> RowIndex:
    """The index of the usable rows alone; it equals the one that their shards would be given."""
    usable = index.usable
    counts = np.diff(index.picture_starts)[usable]
    return dataclasses.replace(
        index,
        offsets=np.arange(len(usable), dtype=np.int64),
        lengths=np.array(writer.lengths, np.int32),
        checksums=np.array(writer.checksums, np.uint32),
        kinds=np.zeros(len(usable), np.uint8),
        text_tokens=index.text_tokens[usable],
        picture_starts=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        summary=dataclasses.replace(index.summary, name=name, num_rows=len(usable), bad=()),
    )
