"""Finds, checks or makes the index of a data set, and opens it."""

import os
from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np

from mres_jax.data.conversations import plain_template
from mres_jax.data.rows.cache import StaleIndex, index_name, load_index, save_index
from mres_jax.data.rows.forms import parse_row
from mres_jax.data.rows.headers import read_extent
from mres_jax.data.rows.index import Reading, RowIndex, build_index
from mres_jax.data.rows.rowset import RowSet
from mres_jax.data.rows.sources import Source, open_source
from mres_jax.data.rows.sources.source import FrontToBack
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
    fields: Mapping[str, str] | None = None,
    scan_only: bool = False,
    log: Callable[[str], None] = lambda line: None,
) -> RowSet:
    """Returns a data set with its index, which is made and kept where there is none.

    Args:
      path: a JSON list or JSON lines, of LLaVA's rows, `messages`, or the project's own; a
        directory of `prepare_rows`; or another source, see `sources.open_source`.
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
      fields: see `sources.open_source`.
      scan_only: also take sources that are read from front to back only, for `prepare_rows`.
      log: receives one line of counts, one where an index was out of date, and of what is
        fetched from a bucket one with its count and bytes, and one for each shard.

    Raises:
      BadRowError: the first bad row and its file, with `on_bad="raise"`.
      MresError: no such file or folder; no rows in it; an index older than its data, if refused;
        video files, but no PyAV to read them with.
      RunError: a bucket that cannot be reached; no room for what is fetched from it.
    """
    source = open_source(path, images=images, follow_links=follow_links, fields=fields, log=log)
    if isinstance(source, FrontToBack) and not scan_only:
        source.read(0, 0)
    is_plain = template == "plain"
    reading = Reading(
        template=plain_template(spec.template) if is_plain else spec.template,
        is_plain=is_plain,
        pictures_first=pictures_first,
        group=spec.temporal_patch_size,
        sampling=FrameSampling.of(spec, fps=fps, max_frames=max_frames),
    )
    name = index_name(source, reading, tokenizer)
    kept = None if index == "rebuild" else _kept(name, source, reading, index, log)
    if kept is None:
        kept = _made(name, source, reading, tokenizer, log)
    log(str(kept.summary))
    rows = RowSet(source, kept, reading, spec, tokenizer)
    if on_bad == "raise" and kept.summary.bad:
        raise _first_bad(kept, source)
    if not len(rows):
        count = kept.summary.num_rows
        raise MresError(f"rows {source.place}: none of {count:,} can be used{_why(kept)}.")
    return rows


def _first_bad(index: RowIndex, source: Source) -> BadRowError:
    """The bad row that stands first, whatever is wrong with it."""
    kind = BAD_KINDS[int(index.kinds[index.kinds > 0][0]) - 1]
    (finding,) = (finding for finding in index.summary.bad if finding.kind == kind)
    row, reason = finding.first[0]
    return BadRowError(row, f"{reason.removesuffix('.')} ({source.place})", kind)


def _why(index: RowIndex) -> str:
    bad = index.summary.bad
    return f": {', '.join(map(str, bad))}: {bad[0].first[0][1]}" if bad else ""


def _kept(
    name: str, source: Source, reading: Reading, index: str, log: Callable[[str], None]
) -> RowIndex | None:
    """The index on disk, or None where there is none that may be used."""
    try:
        kept = load_index(name, source)
        if kept is not None:
            _look_again(kept, source, reading.sampling)
        return kept
    except StaleIndex as stale:
        line = f"rows {source.place}: the index {stale}"
        if index == "refuse":
            raise MresError(f"{line}. Make it again with mres data prepare.") from None
        log(f"{line}; it is made again")
        return None


def _look_again(index: RowIndex, source: Source, sampling: FrameSampling) -> None:
    """Raises `StaleIndex` if a row whose pictures or clips were bad could be used now."""
    if isinstance(source, FrontToBack):
        return
    kinds = [1 + BAD_KINDS.index(kind) for kind in _RELOADABLE]
    for number in np.flatnonzero(np.isin(index.kinds, kinds))[:_LOOKED_AT_AGAIN].tolist():
        try:
            found = index.found(source, number)
            row, _ = parse_row(found.content, number)
            for name in row.images:
                read_extent(name, source.files if found.files is None else found.files, sampling)
        except Fault as fault:
            if fault.kind == "changed":
                raise StaleIndex("is of other contents") from None
        else:
            raise StaleIndex(f"says that pictures of row {row.id} are bad, but now they are good")


def _made(
    name: str,
    source: Source,
    reading: Reading,
    tokenizer: Tokenizer,
    log: Callable[[str], None],
) -> RowIndex:
    facts = source.facts()
    made = build_index(source, reading, tokenizer)
    digest = source.digest()
    if source.facts() != facts:
        raise MresError(f"rows {source.place}: the file changed while it was read. Start again.")
    save_index(made, name, source, {**facts, "sha256": digest}, log=log)
    return made
