"""Rows in tar files as WebDataset has them: neighbouring members of one name are one row.

Nothing is ever written to a disk by the names in a tar file. Still, a row is refused that has a
member which a careless extraction would put elsewhere: `..`, an absolute name, a link, a device.

Reference:
  WebDataset's file format: the key of a member is its name up to the first point behind the last
  slash, its extension is what follows.
"""

import json
import os
import pathlib
import tarfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
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


def _members(path: pathlib.Path | Address) -> Iterator[tuple[str, bytes | Fault]]:
    """Names and contents of all members but directories; those that are refused with the reason."""
    try:
        with path.open("rb") as file, tarfile.open(fileobj=file, mode="r|*") as tar:
            for member in tar:
                if member.isdir():
                    continue
                fault = _refused(member)
                yield member.name, fault or _read(tar, member)
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        reason = shown(error) or type(error).__name__
        raise MresError(f"rows {path}: no whole tar file ({reason}). Copy it anew.") from None


def _refused(member: tarfile.TarInfo) -> Fault | None:
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


def _read(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member)
    content = b"" if file is None else file.read()
    if len(content) != member.size:
        raise tarfile.ReadError(f"member {shown(member.name)} breaks off")
    return content
