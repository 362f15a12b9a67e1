"""Finds, checks or makes the index of a data set, and opens it."""

import os
import pathlib
from collections.abc import Callable
from typing import Literal

import numpy as np

from mres_jax.data.conversations import plain_template
from mres_jax.data.rows.cache import (
    StaleIndex,
    file_digest,
    file_facts,
    index_name,
    load_index,
    save_index,
)
from mres_jax.data.rows.forms import parse_row
from mres_jax.data.rows.headers import read_extent
from mres_jax.data.rows.index import Reading, RowIndex, build_index
from mres_jax.data.rows.pictures import PictureFolder
from mres_jax.data.rows.rowset import RowSet
from mres_jax.data.rows.types import BAD_KINDS, Fault
from mres_jax.data.spec import ProcessorSpec
from mres_jax.data.tokenizer import Tokenizer
from mres_jax.data.video import FrameSampling
from mres_jax.errors import BadRowError, MresError

_LOOKED_AT_AGAIN = 1_000  # rows whose pictures were missing or bad
_RELOADABLE = ("missing picture", "bad picture", "missing video", "bad video")


def open_rows(
    path: str | os.PathLike,
    *,
    spec: ProcessorSpec,
    tokenizer: Tokenizer,
    images: str | os.PathLike | None = None,
    template: Literal["chat", "plain"] = "chat",
    on_bad: Literal["skip", "raise"] = "skip",
    index: Literal["auto", "refuse", "rebuild"] = "auto",
    follow_links: bool = False,
    pictures_first: bool = True,
    fps: float | None = None,
    max_frames: int | None = None,
    log: Callable[[str], None] = lambda line: None,
) -> RowSet:
    """Returns a data set with its index, which is made and kept where there is none.

    Args:
      path: a JSON list or JSON lines, of LLaVA's rows, `messages`, or the project's own.
      spec: of the model.
      tokenizer: of the model.
      images: folder that pictures and clips are named from; the folder of `path` by default.
      template: `chat`, the model's turns; `plain`, captions, see `plain_template`.
      on_bad: `skip` leaves bad rows out and counts them; `raise` refuses a set that has any.
      index: what to do with one that is older than its data: `auto` makes it again, `refuse` is an
        error. `rebuild` makes it again in any case.
      follow_links: let symbolic links lead out of the picture folder.
      pictures_first: see `place_images`.
      fps: frames per second that are looked at of a video file, instead of the model's.
      max_frames: of any clip, instead of the model's.
      log: receives one line of counts, and one where an index was out of date.

    Raises:
      BadRowError: the first bad row, with `on_bad="raise"`.
      MresError: no such file or folder; no rows in it; an index older than its data, if refused;
        video files, but no PyAV to read them with.
    """
    file, folder = _located(path, images, follow_links)
    is_plain = template == "plain"
    reading = Reading(
        template=plain_template(spec.template) if is_plain else spec.template,
        is_plain=is_plain,
        pictures_first=pictures_first,
        sampling=FrameSampling.of(spec, fps=fps, max_frames=max_frames),
    )
    name = index_name(file, folder, reading, tokenizer)
    kept = None if index == "rebuild" else _kept(name, file, folder, reading, index, log)
    if kept is None:
        kept = _made(name, file, folder, reading, tokenizer, log)
    log(str(kept.summary))
    rows = RowSet(file, folder, kept, reading, spec, tokenizer)
    if on_bad == "raise" and kept.summary.bad:
        worst = kept.summary.bad[0]
        raise BadRowError(worst.first[0][0], worst.first[0][1], worst.kind)
    if not len(rows):
        raise MresError(f"rows {file}: none of {kept.summary.num_rows:,} can be used{_why(kept)}.")
    return rows


def _why(index: RowIndex) -> str:
    bad = index.summary.bad
    return f": {', '.join(map(str, bad))}: {bad[0].first[0][1]}" if bad else ""


def _located(
    path: str | os.PathLike, images: str | os.PathLike | None, follow_links: bool
) -> tuple[pathlib.Path, PictureFolder]:
    file = pathlib.Path(path).absolute()
    if not file.is_file():
        what = "is a directory; name the file of rows in it" if file.is_dir() else "no such file"
        raise MresError(f"rows {path}: {what}.")
    root = pathlib.Path(images).absolute() if images is not None else file.parent
    if not root.is_dir():
        raise MresError(f"rows {path}: the picture folder {images} is no directory.")
    return file, PictureFolder(root, follow_links=follow_links)


def _kept(
    name: str,
    file: pathlib.Path,
    folder: PictureFolder,
    reading: Reading,
    index: str,
    log: Callable[[str], None],
) -> RowIndex | None:
    """The index on disk, or None where there is none that may be used."""
    try:
        kept = load_index(name, file)
        if kept is not None:
            _look_again(kept, file, folder, reading.sampling)
        return kept
    except StaleIndex as stale:
        line = f"rows {file}: the index {stale}"
        if index == "refuse":
            raise MresError(f"{line}. Make it again with mres data prepare.") from None
        log(f"{line}; it is made again")
        return None


def _look_again(
    index: RowIndex, file: pathlib.Path, folder: PictureFolder, sampling: FrameSampling
) -> None:
    """Raises `StaleIndex` if a row whose pictures or clips were bad could be used now."""
    kinds = [1 + BAD_KINDS.index(kind) for kind in _RELOADABLE]
    for number in np.flatnonzero(np.isin(index.kinds, kinds))[:_LOOKED_AT_AGAIN].tolist():
        try:
            row, _ = parse_row(index.content(file, number), number)
            for name in row.images:
                read_extent(name, folder, sampling)
        except Fault as fault:
            if fault.kind == "changed":
                raise StaleIndex("is of other contents") from None
        else:
            raise StaleIndex(f"says that pictures of row {row.id} are bad, but now they are good")


def _made(
    name: str,
    file: pathlib.Path,
    folder: PictureFolder,
    reading: Reading,
    tokenizer: Tokenizer,
    log: Callable[[str], None],
) -> RowIndex:
    facts = file_facts(file)
    made = build_index(file, folder, reading, tokenizer)
    digest = file_digest(file)
    if file_facts(file) != facts:
        raise MresError(f"rows {file}: the file changed while it was read. Start again.")
    save_index(made, name, file, {**facts, "sha256": digest}, log=log)
    return made
