"""Rows of a prepared data set of TensorFlow Datasets; needs the extra `tfds`, and no TensorFlow.

Features are the fields of a row, under their own names or those that a mapping gives. Pictures stay
the files that they were prepared from, text is decoded, a class is its name, a sequence of objects
is a list of objects (a conversation, for example), and a video of frames becomes `frames`. Of a
data set at an address the split that is asked for comes whole onto a disk of this machine, once.

Reference:
  tensorflow-datasets 4.9.10, `DatasetBuilder.as_data_source`: reads ArrayRecord and parquet.
"""

import pathlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from mres_jax.data.rows.files import Contained
from mres_jax.data.rows.scan import Found
from mres_jax.data.rows.sources.addresses import Address
from mres_jax.data.rows.sources.caches import cache_folder
from mres_jax.data.rows.sources.facts import digest_of, facts_of
from mres_jax.data.rows.sources.fetching import fetch_all, fetch_file
from mres_jax.data.rows.sources.holding import hold, renamed
from mres_jax.data.rows.sources.records import unpack_record
from mres_jax.data.rows.sources.source import Source
from mres_jax.data.rows.types import Fault, shown
from mres_jax.errors import MresError
from mres_jax.files import is_address

INFO = "dataset_info.json"
_SHARD = re.compile(r"-\d{5,}-of-\d{5,}$")


class TfdsRows(Source):
    """A prepared data set, read at random.

    It is a source as grain takes them: rows as objects with their files as bytes, by number.

    Args:
      text: `NAME@DIRECTORY[,split=train]`; the name may go on with configuration and version, the
        directory may be an address.
      fields: our name of a field -> the feature's.
      log: receives a line for each shard that is fetched from an address.

    Raises:
      MresError: the package is missing; no such data set or split, or one that is not prepared as
        ArrayRecord or parquet; a feature or a shard that is not there.
      RunError: the address cannot be reached, or the disk refuses.
    """

    files = Contained({})

    def __init__(
        self,
        text: str,
        *,
        fields: Mapping[str, str] | None = None,
        log: Callable[[str], None] = lambda line: None,
    ):
        self.place, self.fields = f"tfds:{text}", dict(fields or {})
        name, _, rest = text.partition("@")
        directory, _, split = rest.partition(",split=")
        if not name or not directory:
            raise MresError(f"rows {self.place}: write tfds:NAME@DIRECTORY[,split=SPLIT].")
        self.name, self.split = name, split
        root = Address(directory) if is_address(directory) else pathlib.Path(directory)
        self.directory = _located(root, name, self.place)
        self._opened = self._open(log)
        self.num_rows = len(self._source()[1])
        features = self._source()[0]
        if missing := [theirs for theirs in self.fields.values() if theirs not in features]:
            raise MresError(
                f"rows {self.place}: no feature {', '.join(missing)}; it has {', '.join(features)}."
            )

    def __len__(self) -> int:
        """Rows."""
        return self.num_rows

    def __getitem__(self, number: int) -> dict[str, Any]:
        """Returns the fields of a row under our names, its files as bytes.

        Raises:
          Fault: it cannot be read.
        """
        if not 0 <= number < len(self):
            raise IndexError(number)
        features, source = self._source()
        try:
            example = source[number]
            content = {key: _plain(feature, example[key]) for key, feature in features.items()}
        except (RuntimeError, ValueError, KeyError, IndexError) as error:
            raise Fault("unreadable", f"row {number} cannot be read ({shown(error)})") from None
        for key, feature in features.items():
            if _kind(feature) == "Video":
                content["frames"] = content.pop(key)
        return renamed(content, self.fields)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_opened": None}  # another process opens it itself

    def scan(self) -> Iterator[Found]:
        for number in range(len(self)):
            try:
                content: Mapping[str, Any] | Fault = self[number]
            except Fault as fault:
                content = fault
            yield hold(number, content)

    def read(self, offset: int, length: int) -> bytes:
        return hold(offset, self[offset]).source

    def decode(self, offset: int, content: bytes) -> Found:
        return unpack_record(offset, content)

    def facts(self) -> dict[str, Any]:
        return facts_of(*self._paths())

    def digest(self) -> str:
        return self.facts().get("versions") or digest_of(*self._paths())

    def way(self) -> Mapping[str, Any]:
        return {"tfds": self.name, "split": self.split, "fields": self.fields}

    def _paths(self) -> Sequence[pathlib.Path | Address]:
        if isinstance(self.directory, Address):
            return [self.directory / INFO]  # written anew with every preparation
        return sorted(path for path in self.directory.iterdir() if path.is_file())

    def _source(self) -> tuple[Any, Any]:
        """Features by name, and the examples."""
        if self._opened is None:
            self._opened = self._open(lambda line: None)
        return self._opened

    def _open(self, log: Callable[[str], None]) -> tuple[Any, Any]:
        if isinstance(self.directory, Address):
            copy = _Copy(self.directory, self.place, log)
            return _open(copy.folder, self.split, self.place, copy.fetch)
        return _open(self.directory, self.split, self.place)


class _Copy:
    """The part of a data set at an address that was asked for, in the caches of this machine.

    It belongs to this preparation of the data set: one that is prepared anew is fetched anew.
    """

    def __init__(self, address: Address, place: str, log: Callable[[str], None]):
        """Fetches all but the shards."""
        self._address, self._place, self._log = address, place, log
        self._found = address.listing()
        version = repr((str(address), (address / INFO).read_bytes(), facts_of(address / INFO)))
        self.folder = cache_folder("tfds", version.encode())
        for name in self._found:
            if not _SHARD.search(name):
                self._fetch(name)

    def fetch(self, shards: list[str]) -> None:
        """Brings shards here, several at a time; raises as `fetch_file`."""
        if missing := [name for name in shards if name not in self._found]:
            raise MresError(
                f"rows {self._place}: shard {missing[0]} is missing in {self._address}, "
                f"{len(missing)} of {len(shards)} are. Copy the data set anew."
            )
        sizes = {name: self._found[name] for name in shards}
        fetch_all(
            self.folder,
            sizes,
            lambda name: self._fetch(name, self._log),
            what=self._place,
            log=self._log,
        )

    def _fetch(self, name: str, log: Callable[[str], None] = lambda line: None) -> None:
        fetch_file(self._address / name, self.folder, self._found[name], log=log)


def _located(root: pathlib.Path | Address, name: str, place: str) -> pathlib.Path | Address:
    """The directory of one version."""
    inside = root / name
    if isinstance(inside, Address):
        paths = inside.all_named(INFO)
    else:
        paths = sorted(inside.glob(f"**/{INFO}"))
    found = [path.parent for path in paths]
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(str(path)[len(str(root)) + 1 :] for path in found)
        raise MresError(f"rows {place}: there are several; name one of {names}.")
    raise MresError(f"rows {place}: no prepared data set {name} in {root}.")


def _open(
    directory: pathlib.Path,
    split: str,
    place: str,
    fetch: Callable[[list[str]], None] = lambda shards: None,
) -> tuple[Any, Any]:
    try:
        import tensorflow_datasets as tfds  # pyright: ignore[reportMissingImports], an extra
    except ImportError:
        raise MresError(
            f"rows {place}: needs tensorflow-datasets. pip install 'mres-jax[tfds]'."
        ) from None

    class Undecoded(tfds.decode.SkipDecoding):
        """Pictures in lists too."""

        def decode_batch_example_np(self, serialized: Any) -> Any:
            return serialized

    builder = tfds.builder_from_directory(directory)
    splits, features = builder.info.splits, builder.info.features
    name = split or ("train" if "train" in splits or len(splits) != 1 else next(iter(splits)))
    if name not in splits:
        raise MresError(f"rows {place}: no split {name!r}; it has {', '.join(splits)}.")
    if builder.info.file_format in tfds.core.FileFormat.with_random_access():
        fetch(sorted(splits[name].filenames))
    pictures = {key: Undecoded() for key, each in features.items() if _has_pictures(each)}
    try:
        return features, builder.as_data_source(split=name, decoders=pictures)
    except NotImplementedError as error:
        reason = " ".join(str(error).split())[:160]
        raise MresError(
            f"rows {place}: {reason} Prepare it with file_format='array_record'."
        ) from None


def _has_pictures(feature: Any) -> bool:
    inner = getattr(feature, "feature", None)
    return _kind(feature) in ("Image", "Video") or (inner is not None and _has_pictures(inner))


def _kind(feature: Any) -> str:
    return type(feature).__name__


def _plain(feature: Any, value: Any) -> Any:
    """A value of an example without numpy, bytes only for files."""
    kind = _kind(feature)
    if kind == "Image":
        return bytes(value)
    if kind == "ClassLabel":
        return feature.int2str(int(value)) if int(value) >= 0 else None
    if kind == "FeaturesDict":
        return {key: _plain(each, value[key]) for key, each in feature.items()}
    if kind in ("Sequence", "Video", "Dataset"):
        return _listed(feature.feature, value)
    value = value.tolist() if hasattr(value, "tolist") else value
    return _decoded(value)


def _listed(feature: Any, value: Any) -> list[Any]:
    if _kind(feature) == "FeaturesDict" and isinstance(value, Mapping):
        columns = {key: _listed(each, value[key]) for key, each in feature.items()}
        rows = zip(*columns.values(), strict=True)
        return [dict(zip(columns, row, strict=True)) for row in rows]
    return [_plain(feature, each) for each in value]


def _decoded(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("utf-8")
    return [_decoded(each) for each in value] if isinstance(value, list) else value
