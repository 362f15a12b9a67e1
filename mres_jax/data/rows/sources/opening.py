"""A path -> the kind of rows that stand there."""

import os
import pathlib
from collections.abc import Callable, Mapping

from mres_jax.data.rows.pictures import PictureFolder
from mres_jax.data.rows.sources.addresses import Address
from mres_jax.data.rows.sources.json_rows import JsonRows
from mres_jax.data.rows.sources.prepared import BEGUN, CARD, PreparedRows
from mres_jax.data.rows.sources.source import Source
from mres_jax.errors import MresError
from mres_jax.files import check_shards, is_address

TFDS = "tfds:"


def open_source(
    path: str | os.PathLike[str],
    *,
    images: str | os.PathLike[str] | None = None,
    follow_links: bool = False,
    fields: Mapping[str, str] | None = None,
    log: Callable[[str], None] = lambda line: None,
) -> Source:
    """Returns the rows that a path names.

    Args:
      path: a JSON file; a directory of `prepare_rows`; a parquet or tar file, or a directory of
        such. Or `tfds:NAME@DIRECTORY`, a prepared data set of TensorFlow Datasets. All may be at an
        address, such as `gs://bucket/x`.
      images: folder that pictures and clips of a JSON file are named from; its own by default.
      follow_links: let symbolic links lead out of the picture folder.
      fields: our name of a field -> its name in parquet, in TFDS or in the JSON of a tar file.
      log: receives a line with count and bytes of the files of an address, and one for each shard
        that is fetched from it.

    Raises:
      MresError: no such file or folder, shards of it are missing, or a kind that is not read.
      RunError: an address cannot be reached.
    """
    text = os.fspath(path)
    if text.startswith(TFDS):
        from mres_jax.data.rows.sources.tfds import TfdsRows

        _refuse(text, images=images)
        return TfdsRows(text.removeprefix(TFDS), fields=fields, log=log)
    place = Address(text) if is_address(text) else pathlib.Path(path).absolute()
    if place.is_dir() and any((place / name).is_file() for name in (CARD, BEGUN)):
        _refuse(text, images=images, fields=fields)
        return _prepared(place, log)
    for kind, suffixes in _SUFFIXES.items():
        if found := _all_of(place, suffixes):
            _refuse(text, images=images)
            if isinstance(place, Address):
                sizes = place.listing() or {place.name: place.stat().size}
                size = sum(sizes[file.name] for file in found)
                log(f"rows {place}: files to read there: {len(found):,}, {size / 1e6:,.1f} MB")
            return _open(kind, place, found, fields)
    if not place.is_file():
        raise MresError(f"rows {path}: {_what_is_wrong(place)}.")
    _refuse(text, fields=fields)
    root = place.parent if images is None else images
    if isinstance(place, Address):
        from mres_jax.data.rows.sources.buckets import BucketFolder, BucketRows

        if is_address(root):
            return BucketRows(place, BucketFolder(Address(os.fspath(root))))
        return BucketRows(place, _pictures(text, root, follow_links))
    return JsonRows(place, _pictures(text, root, follow_links))


def _what_is_wrong(place: pathlib.Path | Address) -> str:
    if not place.is_dir():
        return "no such file"
    if _all_of(place, (".array_record",)):
        return f"has shards but no {CARD}: it is not whole. Prepare or copy it again"
    return "is a directory; name the file of rows in it"


_SUFFIXES = {"parquet": (".parquet",), "tar": (".tar", ".tar.gz", ".tgz")}


def _prepared(place: pathlib.Path | Address, log: Callable[[str], None]) -> PreparedRows:
    if not isinstance(place, Address):
        return PreparedRows(place)
    from mres_jax.data.rows.sources.fetched import FetchedRows

    return FetchedRows(place, log)


def _pictures(path: str, root: str | os.PathLike[str], follow_links: bool) -> PictureFolder:
    place = pathlib.Path(root).absolute()
    if not place.is_dir():
        raise MresError(f"rows {path}: the picture folder {root} is no directory.")
    return PictureFolder(place, follow_links=follow_links)


def _all_of(
    place: pathlib.Path | Address, suffixes: tuple[str, ...]
) -> list[pathlib.Path | Address]:
    """The file itself, or all of a directory that holds such files."""
    if place.is_file():
        return [place] if place.name.endswith(suffixes) else []
    if not place.is_dir():
        return []
    found = [file for file in place.iterdir() if file.name.endswith(suffixes)]
    check_shards(found, what=f"rows {place}")
    return sorted(found, key=os.fspath)


def _open(
    kind: str,
    place: pathlib.Path | Address,
    files: list[pathlib.Path | Address],
    fields: Mapping[str, str] | None,
) -> Source:
    if kind == "parquet":
        from mres_jax.data.rows.sources.parquet import ParquetRows

        return ParquetRows(place, files, fields=fields)
    from mres_jax.data.rows.sources.tars import TarRows

    return TarRows(place, files, fields=fields)


def _refuse(
    path: str,
    *,
    images: str | os.PathLike[str] | None = None,
    fields: Mapping[str, str] | None = None,
) -> None:
    """Refuses what such rows have no use for."""
    if images:
        raise MresError(
            f"rows {path}: a picture folder (--images {os.fspath(images)}) is for rows in JSON; "
            "these hold their pictures. Leave it out."
        )
    if fields:
        ours, theirs = next(iter(fields.items()))
        raise MresError(
            f"rows {path}: names of fields (--field {ours}={theirs}) are told for parquet, tar and "
            f"TFDS alone. Write {ours} for {theirs} in these rows, and leave it out."
        )
