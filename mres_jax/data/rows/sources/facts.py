"""What tells that files are others than they were."""

import hashlib
import pathlib

from mres_jax.data.rows.scan import Openable


def facts_of(*paths: pathlib.Path) -> dict[str, int]:
    """What tells cheaply that one of these files is another one."""
    found = [path.stat() for path in paths]
    return {
        "bytes": sum(each.st_size for each in found),
        "modified_ns": max(each.st_mtime_ns for each in found),
    }


def digest_of(*paths: Openable) -> str:
    """The SHA-256 of these files, one behind the other."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
