"""Results that appear together or not at all, and shards that are all there."""

import errno
import itertools
import os
import pathlib
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping

from mres_jax.errors import MresError, RunError

_ADDRESS = re.compile(r"[A-Za-z][\w+.-]+:/")  # `pathlib` leaves one slash of two
_FULL = re.compile("no space|too large|quota", re.IGNORECASE)
# What Hugging Face calls a shard; earlier versions put a hash behind the count.
_SHARD = re.compile(r"(.*-)(\d+)-of-(\d+)(-[0-9a-f]+)?(\.[\w.]+)", re.DOTALL)
_NAMED = 3  # shards that an error names
FREE_SPACE = "Free space or choose another disk"


def write_together(
    directory: str | os.PathLike, contents: Mapping[str, bytes]
) -> list[pathlib.Path]:
    """Writes files into a directory, made if need be; files of the same names are replaced.

    Everything is written under temporary names first and named at the end, so that a full disk
    leaves the directory as it was.

    Args:
      directory: where the files shall stand.
      contents: bytes by file name.

    Returns:
      The paths, in the order of `contents`.

    Raises:
      MresError: a file stands where the directory should.
      RunError: the disk is full or refuses; nothing was changed.
    """
    directory = check_directory(directory)
    made = [parent for parent in (directory, *directory.parents) if not parent.exists()]
    scratch = {name: directory / f".{name}.{os.getpid()}.tmp" for name in contents}
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name, content in contents.items():
            scratch[name].write_bytes(content)
        for name, path in scratch.items():
            path.replace(directory / name)
    except OSError as error:
        _undo(scratch.values(), made)
        raise RunError(f"save {directory}: {disk_reason(error)}; nothing was written.") from error
    return [directory / name for name in contents]


def check_directory(directory: str | os.PathLike) -> pathlib.Path:
    """Returns the path of a directory that exists or can be made.

    Raises:
      MresError: it, or one of its parents, is a file, or it is in a bucket.
    """
    if is_address(directory):
        raise MresError(f"save {directory}: is an address; name a directory of this machine.")
    directory = pathlib.Path(directory)
    for path in (directory, *directory.parents):
        if path.exists() and not path.is_dir():
            raise MresError(f"save {directory}: {path} is a file; name a directory.")
    return directory


def is_address(path: str | os.PathLike) -> bool:
    """Whether a path is in a bucket or on a server, such as `gs://bucket/x`."""
    return _ADDRESS.match(os.fspath(path)) is not None


def check_shards(files: Iterable[str | os.PathLike[str]], *, what: str) -> None:
    """Raises where shards that tell their count, `NAME-00000-of-00003.SUFFIX`, are not all there.

    Those of one folder, name and count belong together; they are numbered from 0 or from 1. Other
    names tell nothing and pass.

    Args:
      files: of a data set.
      what: begins the message.

    Raises:
      MresError: shards are missing, counted; the first three are named.
    """
    sets: defaultdict[tuple[str, ...], list[tuple[str, str]]] = defaultdict(list)
    for file in files:
        folder, name = os.path.split(os.fspath(file))
        if found := _SHARD.fullmatch(name):
            stem, number, total, tag, suffix = found.groups()
            sets[folder, stem, total, suffix].append((number, "-*" if tag else ""))
    num_shards, num_missing, names = 0, 0, []
    for (_, stem, total, suffix), shards in sets.items():
        there, count = {int(number) for number, _ in shards}, int(total)
        start = int(0 not in there and count in there)
        all_of_them = range(start, start + count)
        num_shards += count
        num_missing += count - sum(number in all_of_them for number in there)
        number, tag = shards[0]
        missing = (each for each in all_of_them if each not in there)
        names += [
            f"{stem}{each:0{len(number)}}-of-{total}{tag}{suffix}"
            for each in itertools.islice(missing, _NAMED - len(names))
        ]
    if num_missing:
        more = ", ..." if num_missing > len(names) else ""
        raise MresError(
            f"{what}: {num_missing:,} of {num_shards:,} shards missing "
            f"({', '.join(names)}{more}). Copy them there, or name a single file."
        )


def disk_reason(error: OSError) -> str:
    """Returns what the operating system said, with the cure where the disk is full."""
    reason = system_reason(error).lower()
    return f"{reason}. {FREE_SPACE}" if is_disk_full(error) else reason


def system_reason(error: OSError) -> str:
    """Returns what the operating system said, without path and number."""
    return error.strerror or type(error).__name__


def is_disk_full(error: Exception) -> bool:
    """Whether a disk or a quota is full; libraries that are not Python say it in words only."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)
    return _FULL.search(str(error)) is not None


def _undo(scratch, made: list[pathlib.Path]) -> None:
    for path in scratch:
        path.unlink(missing_ok=True)
    for directory in made:
        try:
            directory.rmdir()
        except OSError:
            return
