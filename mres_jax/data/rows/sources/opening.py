"""A path -> the kind of rows that stand there."""

import os
import pathlib
from collections.abc import Mapping

from mres_jax.data.rows.pictures import PictureFolder
from mres_jax.data.rows.sources.json_rows import JsonRows
from mres_jax.data.rows.sources.prepared import BEGUN, CARD, PreparedRows
from mres_jax.data.rows.sources.source import Source
from mres_jax.errors import MresError
from mres_jax.files import is_address

TFDS = "tfds:"


def open_source(
    path: str | os.PathLike[str],
    *,
    images: str | os.PathLike[str] | None = None,
    follow_links: bool = False,
    fields: Mapping[str, str] | None = None,
) -> Source:
    """Returns the rows that a path names.

    Args:
      path: a JSON file, which may be in a bucket; a directory of `prepare_rows`; a parquet or tar
        file, or a directory of such; `tfds:NAME@DIRECTORY`, a prepared data set of TensorFlow
        Datasets.
      images: folder that pictures and clips of a JSON file are named from; its own by default.
      follow_links: let symbolic links lead out of the picture folder.
      fields: our name of a field -> its name in parquet, in TFDS or in the JSON of a tar file.

    Raises:
      MresError: no such file or folder, or a kind that is not read.
    """
    text = os.fspath(path)
    if text.startswith(TFDS):
        from mres_jax.data.rows.sources.tfds import TfdsRows

        _refuse(text, images=images)
        return TfdsRows(text.removeprefix(TFDS), fields=fields)
    if is_address(path):
        from mres_jax.data.rows.sources.buckets import BucketRows

        _refuse(text, fields=fields)
        return BucketRows(text, images)
    place = pathlib.Path(path).absolute()
    if (place / CARD).is_file() or (place / BEGUN).is_file():
        _refuse(text, images=images, fields=fields)
        return PreparedRows(place)
    for kind, suffixes in _SUFFIXES.items():
        if found := _all_of(place, suffixes):
            _refuse(text, images=images)
            return _open(kind, place, found, fields)
    _refuse(text, fields=fields)
    if not place.is_file():
        what = "is a directory; name the file of rows in it" if place.is_dir() else "no such file"
        raise MresError(f"rows {path}: {what}.")
    root = pathlib.Path(images).absolute() if images is not None else place.parent
    if not root.is_dir():
        raise MresError(f"rows {path}: the picture folder {images} is no directory.")
    return JsonRows(place, PictureFolder(root, follow_links=follow_links))


_SUFFIXES = {"parquet": (".parquet",), "tar": (".tar", ".tar.gz", ".tgz")}


def _all_of(place: pathlib.Path, suffixes: tuple[str, ...]) -> list[pathlib.Path]:
    """The file itself, or all of a directory that holds such files."""
    if place.is_file():
        return [place] if place.name.endswith(suffixes) else []
    if not place.is_dir():
        return []
    return sorted(file for file in place.iterdir() if file.name.endswith(suffixes))


def _open(
    kind: str,
    place: pathlib.Path,
    files: list[pathlib.Path],
    fields: Mapping[str, str] | None,
) -> Source:
    if kind == "parquet":
        from mres_jax.data.rows.sources.parquet import ParquetRows

        return ParquetRows(place, files, fields=fields)
    from mres_jax.data.rows.sources.tars import TarRows

    return TarRows(place, files, fields=fields)


def _refuse(path: str, **given: object) -> None:
    for name, value in given.items():
        if value:
            raise MresError(f"rows {path}: {name}={value} has no meaning for these rows.")
