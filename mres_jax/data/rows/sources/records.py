"""A row and its files as one run of bytes.

Eight bytes say `mres` and how long the JSON is that follows: `{"row": ..., "files": [[name, bytes],
...]}`; then the files, one behind the other; then CRC-32 of it all.
"""

import json
import struct
import zlib
from collections.abc import Mapping
from typing import Any

from mres_jax.data.rows.files import Contained
from mres_jax.data.rows.scan import Found
from mres_jax.data.rows.types import Fault

_HEAD = struct.Struct("<4sI")
_TAIL = struct.Struct("<I")
_MAGIC = b"mres"


def pack_record(row: Any, files: Mapping[str, bytes]) -> bytes:
    """Returns a row, as decoded JSON, with its files by name."""
    sizes = [[name, len(content)] for name, content in files.items()]
    header = json.dumps({"row": row, "files": sizes}, ensure_ascii=False).encode()
    body = b"".join([_HEAD.pack(_MAGIC, len(header)), header, *files.values()])
    return body + _TAIL.pack(zlib.crc32(body))


def unpack_record(offset: int, record: bytes) -> Found:
    """Returns what `pack_record` was given.

    Raises:
      Fault: it is another record, or damaged.
    """
    if len(record) < _HEAD.size + _TAIL.size:
        raise Fault("changed", f"record {offset} has {len(record)} bytes. Prepare the rows again")
    magic, length = _HEAD.unpack_from(record)
    (known,) = _TAIL.unpack_from(record, len(record) - _TAIL.size)
    if magic != _MAGIC or zlib.crc32(memoryview(record)[: -_TAIL.size]) != known:
        raise Fault("changed", f"record {offset} is damaged. Prepare the rows again")
    try:
        return _parsed(offset, record, _HEAD.size + length)
    except (ValueError, KeyError, TypeError, RecursionError):
        raise Fault("changed", f"record {offset} is none of a row. Prepare them again") from None


def _parsed(offset: int, record: bytes, at: int) -> Found:
    """A row whose files begin `at`; raises ValueError, KeyError or TypeError for anything else."""
    header = json.loads(record[_HEAD.size : at])
    files = {}
    for name, size in header["files"]:
        files[str(name)] = record[at : at + size]
        at += size
    if at != len(record) - _TAIL.size:
        raise ValueError("the files are of another length")
    return Found(offset, record, header["row"], Contained(files))
