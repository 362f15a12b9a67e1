"""What tells that files are others than they were."""

import hashlib
import pathlib
import zlib
from collections.abc import Iterator
from typing import Any

from mres_jax.data.rows.scan import Openable
from mres_jax.data.rows.sources.addresses import Address


def facts_of(*paths: pathlib.Path | Address) -> dict[str, Any]:
    """What tells cheaply that one of these files is another one.

    Returns:
      `bytes` of all; and the newest `modified_ns` of files on disks, or the SHA-256 of all
      `versions` where stores tell them.
    """
    facts: dict[str, Any] = {"bytes": 0}
    versions: list[str] = []
    for path in paths:
        if isinstance(path, Address):
            size, version = path.stat()
            versions.append(version)
        else:
            found = path.stat()
            size = found.st_size
            facts["modified_ns"] = max(found.st_mtime_ns, facts.get("modified_ns", 0))
        facts["bytes"] += size
    if versions and all(versions):
        facts["versions"] = hashlib.sha256(repr(versions).encode()).hexdigest()
    return facts


def digest_of(*paths: Openable) -> str:
    """The SHA-256 of these files, one behind the other."""
    digest = hashlib.sha256()
    for path in paths:
        for block in _blocks(path):
            digest.update(block)
    return digest.hexdigest()


def crc32_of(path: Openable) -> str:
    """The CRC-32 of a file, hexadecimal."""
    checksum = 0
    for block in _blocks(path):
        checksum = zlib.crc32(block, checksum)
    return f"{checksum:08x}"


def _blocks(path: Openable) -> Iterator[bytes]:
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            yield block
