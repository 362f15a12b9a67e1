"""`mres_manifest.json`: what a checkpoint of ours holds, with a checksum of every file.

Orbax loads a flipped bit as a wrong weight without a word, so each file's CRC-32 is kept beside it
and compared before anything is read. A checkpoint is complete once its manifest stands: it is
written last. Paths may be `gs://` as far as `etils.epath` reaches them.
"""

import dataclasses
import json
import re
import zlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from etils import epath

from mres_jax.errors import CheckpointError

FILE = "mres_manifest.json"
TREES = "orbax"  # subdirectory of the arrays
ASSETS = "assets"  # subdirectory of tokenizer files and the like
_CHUNK = 4 * 2**20  # bytes


class DamagedError(CheckpointError):
    """Files of a checkpoint that are not what was saved."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a checkpoint is.

    Attributes:
      step: training step, 0 for converted weights.
      config: the model, as its `config.json`.
      policy: resolution policy the model was trained with, if known.
      extra: anything else that JSON can hold.
      arrays: tree -> dotted name -> [shape, dtype].
      files: path below the checkpoint -> [bytes, CRC-32 in hexadecimal].
      base: another checkpoint that holds the arrays missing here, as `reference` describes it.
    """

    step: int
    config: Mapping[str, Any]
    policy: str | None
    extra: Mapping[str, Any]
    arrays: Mapping[str, Mapping[str, list[Any]]]
    files: Mapping[str, list[Any]]
    base: Mapping[str, str] | None = None


def write_manifest(directory: epath.Path, manifest: Manifest) -> None:
    """Writes the manifest; the checkpoint is complete from then on."""
    scratch = directory / f".{FILE}.tmp"
    scratch.write_text(_serialise(dataclasses.asdict(manifest)))
    scratch.rename(directory / FILE)


def read_manifest(directory: epath.Path) -> Manifest:
    """Returns the manifest of a checkpoint.

    Raises:
      CheckpointError: there is none.
      DamagedError: a byte of it was changed.
    """
    path = directory / FILE
    if not path.exists():
        raise CheckpointError(
            f"{directory}: no {FILE}; either not a checkpoint of ours, or its save was cut short."
        )
    data = path.read_bytes()
    try:
        content = json.loads(data)
        stated = content.pop("crc32")
        computed = _crc32(_body(content))
        if stated == computed and _serialise(content).encode() != data:
            computed = "of other bytes"
        if stated == computed:
            return Manifest(**content)
        reason = f"crc32 {computed}, expected {stated}"
    except (ValueError, TypeError, KeyError, AttributeError):
        reason = "not readable"
    raise DamagedError(f"{directory}: file {FILE}: {reason}.")


def reference(directory: epath.Path, base: epath.Path) -> dict[str, str]:
    """Returns how a checkpoint beside `base` names it: relative path, CRC-32 of its manifest."""
    name = f"../{base.name}"
    assert (directory.parent / base.name) == base, (directory, base)
    return {"directory": name, "crc32": str(_checksum(base / FILE)[1])}


def read_base(directory: epath.Path, manifest: Manifest) -> tuple[epath.Path, Manifest] | None:
    """Returns the checkpoint that `manifest` leans on, if it does.

    Raises:
      CheckpointError: it is not there.
      DamagedError: it is not the one that was there.
    """
    if manifest.base is None:
        return None
    base = directory.parent / manifest.base["directory"].removeprefix("../")
    if not (base / FILE).exists():
        raise CheckpointError(
            f"{directory}: its frozen parameters stood in {base}, which is gone. Move a run's "
            "checkpoints as a whole; `mres convert` makes a model that stands alone."
        )
    if (found := _checksum(base / FILE)[1]) != manifest.base["crc32"]:
        raise DamagedError(
            f"{base}: {FILE}: crc32 {found}, expected {manifest.base['crc32']} by {directory}."
        )
    return base, read_manifest(base)


def verify(directory: epath.Path, manifest: Manifest) -> None:
    """Compares every file with the manifest.

    Raises:
      DamagedError: files that are missing, changed or strange, all by name.
    """
    present = list_files(directory)
    missing = [name for name in manifest.files if name not in present]
    strange = [name for name in present if name not in manifest.files and name.startswith(TREES)]
    listed = {name: path for name, path in present.items() if name in manifest.files}
    found = checksums(listed)
    damaged = [
        f"file {name}: {_difference(found[name], manifest.files[name])}"
        for name in listed
        if found[name] != list(manifest.files[name])
    ]
    problems = [*(f"file {name}: missing" for name in missing), *damaged]
    problems += [f"file {name}: not part of what was saved" for name in strange]
    if problems:
        raise DamagedError(f"{directory}: {'; '.join(problems)}.")


def read_asset(directory: epath.Path, name: str) -> bytes | None:
    """Returns a file that was kept beside the arrays, or None where none of that name was.

    Raises:
      DamagedError: it is missing or changed.
    """
    file, path = f"{ASSETS}/{name}", directory / ASSETS / name
    stated = read_manifest(directory).files.get(file)
    if stated is None:
        return None
    if not path.exists():
        raise DamagedError(f"{directory}: file {file}: missing.")
    data = path.read_bytes()
    found = [len(data), f"{zlib.crc32(data):08x}"]
    if found != list(stated):
        raise DamagedError(f"{directory}: file {file}: {_difference(found, stated)}.")
    return data


def checksums(files: Mapping[str, epath.Path]) -> dict[str, list[Any]]:
    """Returns [bytes, CRC-32] of each file, several at a time."""
    with ThreadPoolExecutor(8) as pool:
        return dict(zip(files, pool.map(_checksum, files.values()), strict=True))


def list_files(directory: epath.Path) -> dict[str, epath.Path]:
    """Files below a checkpoint by relative name, the manifest itself left out."""
    found = {}
    waiting = [(directory, "")]
    while waiting:
        folder, prefix = waiting.pop()
        for path in folder.iterdir():
            name = prefix + path.name
            if path.is_dir():
                waiting.append((path, name + "/"))
            elif name not in (FILE, f".{FILE}.tmp"):
                found[name] = path
    return dict(sorted(found.items()))


def step_directory(root: epath.Path, step: int) -> epath.Path:
    """Where a run keeps one step."""
    return root / f"step_{step:08}"


def list_steps(root: epath.Path, *, complete: bool = True) -> list[int]:
    """Steps below `root` in order; `complete=False` lists those whose save was cut short."""
    if not root.is_dir():
        return []
    steps = []
    for path in root.iterdir():
        match = re.fullmatch(r"step_(\d{8,})", path.name)
        if match and (path / FILE).exists() == complete:
            steps.append(int(match[1]))
    return sorted(steps)


def _difference(found: list[Any], stated: list[Any]) -> str:
    if found[0] != stated[0]:
        return f"{found[0]} bytes, expected {stated[0]}"
    return f"crc32 {found[1]}, expected {stated[1]}"


def _checksum(path: epath.Path) -> list[Any]:
    size, crc = 0, 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            size, crc = size + len(chunk), zlib.crc32(chunk, crc)
    return [size, f"{crc:08x}"]


def _crc32(text: str) -> str:
    return f"{zlib.crc32(text.encode()):08x}"


def _body(content: Mapping[str, Any]) -> str:
    return json.dumps(content, indent=1)


def _serialise(content: Mapping[str, Any]) -> str:
    return _body({"crc32": _crc32(_body(content)), **content}) + "\n"
