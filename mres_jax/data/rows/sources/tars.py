"""Rows in tar files as WebDataset has them: neighbouring members of one name are one row.

Nothing is ever written to a disk by the names in a tar file. Still, a row is refused that has a
member which a careless extraction would put elsewhere: `..`, an absolute name, a link, a device.

Reference:
  WebDataset's file format: the key of a member is its name up to the first point behind the last
  slash, its extension is what follows.
"""

import contextlib
import gzip
import io
import json
import os
import pathlib
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from tarfile import BLOCKSIZE, HeaderError, ReadError, TarError, TarFile, TarInfo
from typing import Any

from mres_jax.data.rows.files import Contained
from mres_jax.data.rows.forms import has_form
from mres_jax.data.rows.scan import Found
from mres_jax.data.rows.sources.addresses import Address
from mres_jax.data.rows.sources.holding import hold, renamed
from mres_jax.data.rows.sources.source import FrontToBack
from mres_jax.data.rows.types import Fault, shown
from mres_jax.errors import MresError

MAX_MEMBER_BYTES = 1 << 29  # more are no picture
PICTURES = ("jpg", "jpeg", "png", "webp", "bmp", "gif")
CLIPS = ("mp4", "m4v", "mov", "mkv", "webm", "avi")
CAPTIONS = ("txt", "caption", "cap", "text")
_NAMES = ("image", "images", "video", "videos", "frames")
_GZIP = b"\x1f\x8b\x08"  # how one begins
_BUFFER = 1 << 17  # bytes


class TarRows(FrontToBack):
    """Rows of one or more tar files, in the order of their names.

    A row is its JSON, whose pictures and clips are named as members, or else are all that the row
    has; or a caption in a `.txt`, which is taught behind them. Members of other kinds are not read.

    Args:
      place: the file, or the directory of the files.
      paths: of the files.
      fields: our name of a field -> its name in the JSON.
    """

    files = Contained({})

    def __init__(
        self,
        place: pathlib.Path | Address,
        paths: Sequence[pathlib.Path | Address],
        *,
        fields: Mapping[str, str] | None = None,
    ):
        self.name, self.place, self.paths = place.name, str(place), list(paths)
        self.fields = dict(fields or {})

    def scan(self) -> Iterator[Found]:
        number = 0
        for path in self.paths:
            for key, members in _grouped(_members(path)):
                yield hold(number, self._row(key, members))
                number += 1

    def way(self) -> Mapping[str, Any]:
        return {"tar": self.fields}

    def _row(self, key: str, members: Mapping[str, bytes | Fault]) -> Mapping[str, Any] | Fault:
        try:
            for member in members.values():
                if isinstance(member, Fault):
                    raise member
            return _content(key, members, self.fields)
        except Fault as fault:
            return Fault(fault.kind, f"{shown(key)}: {fault.reason}")


def _content(key: str, members: Mapping[str, Any], fields: Mapping[str, str]) -> dict[str, Any]:
    """The fields of a row, its files as bytes."""
    content = renamed(_json(members.get("json")), fields)
    if not has_form(content):
        caption = next((members[name] for name in CAPTIONS if name in members), None)
        caption = content.get("caption") if caption is None else _text(caption)
        if not isinstance(caption, str):
            raise Fault(
                "unknown form", f"it has no question and no caption, only {_kinds(members)}"
            )
        content = {
            "conversations": [
                {"from": "human", "value": "<image>"},
                {"from": "gpt", "value": caption.strip()},
            ]
        }
    content = {"id": key} | content
    if not any(content.get(name) for name in _NAMES):
        pictures = [v for k, v in members.items() if k.rpartition(".")[2] in PICTURES]
        clips = [v for k, v in members.items() if k.rpartition(".")[2] in CLIPS]
        return content | {"images": pictures, "videos": clips}
    by_name = {f"{os.path.basename(key)}.{k}": v for k, v in members.items()}
    by_name |= {f"{key}.{k}": v for k, v in members.items()}
    return content | {name: _filled(content[name], by_name) for name in _NAMES if name in content}


def _filled(value: Any, members: Mapping[str, bytes]) -> Any:
    """Names of files -> their bytes."""
    if isinstance(value, list):
        return [_filled(each, members) for each in value]
    if not isinstance(value, str):
        return value
    found = members.get(value, members.get(os.path.basename(value)))
    if found is None:
        raise Fault(
            "missing picture", f"{shown(value)} is none of {', '.join(map(shown, members))}"
        )
    return found


def _json(content: bytes | None) -> dict[str, Any]:
    try:
        found = json.loads(content or b"{}")
    except (ValueError, RecursionError) as error:
        raise Fault("not JSON", f"its .json is no JSON ({shown(error)})") from None
    if not isinstance(found, dict):
        raise Fault("unknown form", f"its .json is no object, but a {type(found).__name__}")
    return found


def _text(content: bytes) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise Fault("unknown form", "its caption is not UTF-8") from None


def _kinds(members: Iterable[str]) -> str:
    return ", ".join(f".{shown(name)}" for name in members) or "nothing"


def _grouped(
    members: Iterable[tuple[str, bytes | Fault]],
) -> Iterator[tuple[str, dict[str, bytes | Fault]]]:
    """Neighbours of one key, by their extensions in lower case."""
    key, row = "", {}
    for name, content in members:
        folder, base = os.path.split(name)
        stem, _, extension = base.partition(".")
        this = os.path.join(folder, stem)
        if row and this != key:
            yield key, row
            row = {}
        key, extension = this, extension.lower()
        twice = extension in row
        row[extension] = Fault("unknown form", f"two members {shown(name)}") if twice else content
    if row:
        yield key, row


class _NoEndError(ReadError):
    """Whole members, and nothing behind them."""


class _Header(TarInfo):
    """A header whose damage is an error; tarfile takes all but a damaged first one for the end."""

    @classmethod
    def fromtarfile(cls, tarfile: TarFile) -> TarInfo:
        """Returns the next header, with those before it that only lengthen it."""
        try:
            return super().fromtarfile(tarfile)
        except _NoEndError:
            if tarfile.fileobj.tell() == tarfile.offset:  # pyright: ignore[reportOptionalMemberAccess], open
                raise
            raise ReadError("it breaks off in a header") from None

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> TarInfo:
        """Returns the header in a block; raises `HeaderError` for zeros, which are the end."""
        try:
            return super().frombuf(buf, encoding, errors)
        except HeaderError as error:
            if not buf:
                raise _NoEndError("no block of zeros ends it") from None
            if len(buf) < BLOCKSIZE:
                raise ReadError("it breaks off in a header") from None
            if any(buf):
                raise ReadError(f"a damaged header: {error}") from None
            raise


def _members(path: pathlib.Path | Address) -> Iterator[tuple[str, bytes | Fault]]:
    """Names and contents of all members but directories; those that are refused with the reason.

    Raises:
      MresError: the file is cut or damaged, or no block of zeros ends it. A flipped byte of a gzip
        may be told only behind the last member.
    """
    last, at = "", 0
    try:
        with _unpacked(path) as file, TarFile.open(fileobj=file, mode="r|", tarinfo=_Header) as tar:
            for member in tar:
                if not member.isdir():
                    fault = _refused(member)
                    yield member.name, fault or _read(tar, member)
                last, at = member.name, tar.offset
            _read_end(tar)
    except (TarError, OSError, EOFError, zlib.error) as error:
        reason = f"{shown(error) or type(error).__name__}; readable up to byte {at:,}"
        reason += f", member {shown(last)}" if last else ""
        cure = "Copy it anew"
        if last and isinstance(error, _NoEndError):
            cure += ", or append 1,024 zero bytes if it was written so"
        raise MresError(f"rows {path}: no whole tar file ({reason}). {cure}.") from None


@contextlib.contextmanager
def _unpacked(path: pathlib.Path | Address) -> Iterator[io.BufferedIOBase]:
    """The tar in a file, which may be a gzip: tarfile's own reader passes over its checksum."""
    file = path.open("rb")
    with io.BufferedReader(file, _BUFFER) if isinstance(file, io.RawIOBase) else file as file:
        if file.peek(len(_GZIP))[: len(_GZIP)] != _GZIP:
            yield file
        else:
            with gzip.GzipFile(fileobj=file) as inner:
                yield inner


def _read_end(tar: TarFile) -> None:
    """Reads all behind the first block of zeros, which the checksum of a gzip is for too."""
    while content := tar.fileobj.read(_BUFFER):  # pyright: ignore[reportOptionalMemberAccess], open
        if content.count(0) != len(content):
            raise ReadError("more than zeros behind its end: damage, or another archive")


def _refused(member: TarInfo) -> Fault | None:
    name = shown(member.name)
    if member.issym() or member.islnk():
        return Fault("unsafe path", f"member {name} is a link to {shown(member.linkname)}")
    if not member.isreg():
        return Fault("unsafe path", f"member {name} is no file")
    if os.path.isabs(member.name) or member.name.startswith("\\"):
        return Fault("unsafe path", f"member {name} has an absolute name")
    if ".." in member.name.replace("\\", "/").split("/"):
        return Fault("unsafe path", f"member {name} has .. in it")
    if member.size > MAX_MEMBER_BYTES:
        return Fault(
            "bad picture", f"member {name} has {member.size:,} bytes of {MAX_MEMBER_BYTES:,}"
        )
    return None


def _read(tar: TarFile, member: TarInfo) -> bytes:
    file = tar.extractfile(member)
    content = b"" if file is None else file.read()
    if len(content) != member.size:
        raise ReadError(f"member {shown(member.name)} breaks off")
    return content
