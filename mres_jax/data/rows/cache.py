"""Indexes on disk: where they stand, what they are valid for, and when they are out of date."""

import dataclasses
import hashlib
import io
import json
import zipfile
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from mres_jax.data.rows.index import Reading, RowIndex
from mres_jax.data.rows.sources.source import Source
from mres_jax.data.rows.summary import Summary
from mres_jax.data.tokenizer import Tokenizer
from mres_jax.errors import MresError, RunError
from mres_jax.files import write_together

VERSION = 4  # of the format and of what counts as bad
_ARRAYS = [f.name for f in dataclasses.fields(RowIndex) if f.type is np.ndarray]


def index_name(source: Source, reading: Reading, tokenizer: Tokenizer) -> str:
    """Returns the name of the index that answers for this way to read the rows."""
    facts = {
        "version": VERSION,
        **source.way(),
        "reading": dataclasses.asdict(reading),
        "tokenizer": hashlib.sha256(tokenizer.to_bytes()).hexdigest(),
    }
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    return f"{digest[:16]}.npz"


def save_index(
    index: RowIndex,
    name: str,
    source: Source,
    facts: Mapping[str, Any],
    *,
    log: Callable[[str], None],
) -> None:
    """Keeps an index beside its rows, or else with the user's caches; says so if neither works."""
    content, problem = to_bytes(index, facts), None
    for directory in source.index_folders():
        try:
            write_together(directory, {name: content})
            return
        except (MresError, RunError) as error:
            problem = problem or error
    log(f"index of {source.place} is not kept, so it will be made again: {problem}")


def to_bytes(index: RowIndex, facts: Mapping[str, Any]) -> bytes:
    """Returns the file of an index; `facts` are those of its source, and its digest as `sha256`."""
    header = {"data": dict(facts), "summary": index.summary.to_dict()}
    arrays = {key: getattr(index, key) for key in _ARRAYS}
    stream = io.BytesIO()
    np.savez(stream, header=np.frombuffer(json.dumps(header).encode(), np.uint8), **arrays)
    return stream.getvalue()


class StaleIndex(Exception):
    """An index of other data; says what differs."""


def load_index(name: str, source: Source) -> RowIndex | None:
    """Returns the kept index, or None if there is none.

    Raises:
      StaleIndex: there is one, but it is damaged or the rows changed since.
    """
    problem = None
    for directory in source.index_folders():
        file = directory / name
        if not file.exists():
            continue
        try:
            with np.load(file, allow_pickle=False) as content:
                header = json.loads(content["header"].tobytes())
                arrays = {key: content[key] for key in _ARRAYS}
            summary = Summary.from_dict(header["summary"] | {"name": source.name})
            index = RowIndex(**arrays, summary=summary)
            known = header["data"]
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile):
            problem = problem or StaleIndex("is damaged")
            continue
        try:
            _check_fresh(source, known)
            return index
        except StaleIndex as stale:
            problem = problem or stale
    if problem is not None:
        raise problem
    return None


def _check_fresh(source: Source, known: Mapping[str, Any]) -> None:
    now = source.facts()
    if now["bytes"] != known["bytes"]:
        raise StaleIndex(
            f"is of a file of {known['bytes']:,} bytes, and now it has {now['bytes']:,}"
        )
    if any(known.get(key) != now[key] for key in now) and source.digest() != known["sha256"]:
        raise StaleIndex("is older than the file, whose contents changed")
