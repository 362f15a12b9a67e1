"""Indexes on disk: where they stand, what they are valid for, and when they are out of date."""

import dataclasses
import hashlib
import io
import json
import os
import pathlib
import zipfile
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from mres_jax.data.rows.index import Reading, RowIndex
from mres_jax.data.rows.pictures import PictureFolder
from mres_jax.data.rows.summary import Summary
from mres_jax.data.tokenizer import Tokenizer
from mres_jax.errors import MresError, RunError
from mres_jax.files import write_together

VERSION = 2  # of the format and of what counts as bad
_ARRAYS = [f.name for f in dataclasses.fields(RowIndex) if f.type is np.ndarray]


def index_name(
    path: pathlib.Path, folder: PictureFolder, reading: Reading, tokenizer: Tokenizer
) -> str:
    """Returns the name of the index that answers for this way to read the rows.

    The picture folder counts by its place beside the rows, so that a data set can be moved.
    """
    facts = {
        "version": VERSION,
        "folder": os.path.relpath(folder.root, path.parent),
        "follow_links": folder.follow_links,
        "reading": dataclasses.asdict(reading),
        "tokenizer": hashlib.sha256(tokenizer.to_bytes()).hexdigest(),
    }
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    return f"{digest[:16]}.npz"


def index_folders(path: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path]:
    """Where the indexes of a file may stand: beside it, or with the user's caches."""
    home = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    place = hashlib.sha256(os.fsencode(path)).hexdigest()[:16]
    return path.with_name(f"{path.name}.index"), pathlib.Path(home, "mres", "rows", place)


def file_facts(path: pathlib.Path) -> dict[str, int]:
    """What tells cheaply that a file is another one."""
    status = path.stat()
    return {"bytes": status.st_size, "modified_ns": status.st_mtime_ns}


def file_digest(path: pathlib.Path) -> str:
    """Returns the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def save_index(
    index: RowIndex,
    name: str,
    path: pathlib.Path,
    facts: Mapping[str, Any],
    *,
    log: Callable[[str], None],
) -> None:
    """Keeps an index beside its rows, or else with the user's caches; says so if neither works."""
    header = {"data": dict(facts), "summary": index.summary.to_dict()}
    arrays = {key: getattr(index, key) for key in _ARRAYS}
    stream = io.BytesIO()
    np.savez(stream, header=np.frombuffer(json.dumps(header).encode(), np.uint8), **arrays)
    problem = None
    for directory in index_folders(path):
        try:
            write_together(directory, {name: stream.getvalue()})
            return
        except (MresError, RunError) as error:
            problem = problem or error
    log(f"index of {path} is not kept, so it will be made again: {problem}")


class StaleIndex(Exception):
    """An index of other data; says what differs."""


def load_index(name: str, path: pathlib.Path) -> RowIndex | None:
    """Returns the kept index, or None if there is none.

    Raises:
      StaleIndex: there is one, but it is damaged or the rows changed since.
    """
    problem = None
    for directory in index_folders(path):
        file = directory / name
        if not file.exists():
            continue
        try:
            with np.load(file, allow_pickle=False) as content:
                header = json.loads(content["header"].tobytes())
                arrays = {key: content[key] for key in _ARRAYS}
            index = RowIndex(**arrays, summary=Summary.from_dict(header["summary"]))
            known = header["data"]
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile):
            problem = problem or StaleIndex("is damaged")
            continue
        try:
            _check_fresh(path, known)
            return index
        except StaleIndex as stale:
            problem = problem or stale
    if problem is not None:
        raise problem
    return None


def _check_fresh(path: pathlib.Path, known: Mapping[str, Any]) -> None:
    now = file_facts(path)
    if now["bytes"] != known["bytes"]:
        raise StaleIndex(
            f"is of a file of {known['bytes']:,} bytes, and now it has {now['bytes']:,}"
        )
    if now["modified_ns"] != known["modified_ns"] and file_digest(path) != known["sha256"]:
        raise StaleIndex("is older than the file, whose contents changed")
